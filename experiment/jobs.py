"""Trains several runs at the same time, each in a process (`--jobs 2`)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files.errors import UsageError
from ..files.printing import say_aside
from ..files.writing import make_folder, open_for_append

TICK = 0.2
"""The number of seconds between two looks at the processes."""
IS_JOB = "CHOPMIX_JOB"
"""The environment variable that tells a process that `--jobs` started it."""
LINES = 12
"""The number of lines of the output of a failed run that are printed."""


@dataclass(frozen=True)
class Job:
    """A run that is to be trained."""

    title: str
    """The name of the run, for messages."""
    arguments: Sequence[str]
    """The arguments of `chopmix train`."""
    log: Path
    """The file that receives what the run prints."""


@dataclass(frozen=True)
class Running:
    """A job whose process runs."""

    job: Job
    process: subprocess.Popen
    device: int
    started: float

    def end(self) -> None:
        """Waits until the process has ended, and closes its standard input (see `end_with_parent`)."""
        self.process.wait()
        self.process.stdin.close()


def run_jobs(jobs: Sequence[Job], most: int, finished: Callable[[int], None]) -> int:
    """Trains all jobs, at most `most` at the same time, and calls `finished` with the number of each job that ended
    well. On a machine with several GPUs they are distributed over the GPUs; on a CPU they share the cores. Returns the
    exit status: that of the first job that failed, or 128 + the number of the signal that stopped this process. In
    both cases the other jobs are stopped, save a checkpoint, and are continued when the command is repeated."""
    if "RANK" in os.environ:
        raise UsageError("--jobs starts separate processes; it cannot be combined with torchrun")
    with noted_signals() as stopped:
        queue = Queue(jobs, most, finished)
        while queue.waiting or queue.running:
            if not stopped():
                queue.start()
            failed = queue.collect(stopped)
            if failed or stopped():
                queue.stop()
                return failed or 128 + stopped()
            time.sleep(TICK)
    return 0


class Queue:
    """Jobs that wait for a process, and those that run."""

    def __init__(self, jobs: Sequence[Job], most: int, finished: Callable[[int], None]):
        self.waiting, self.running = deque(enumerate(jobs)), list[tuple[int, Running]]()
        self.count, self.most, self.finished, self.done = len(jobs), most, finished, 0

    def start(self) -> None:
        """Starts waiting jobs, each on a device that no other one has."""
        while self.waiting and len(self.running) < self.most:
            number, job = self.waiting.popleft()
            used = {each.device for _, each in self.running}
            device = next(n for n in range(self.most) if n not in used)
            self.running.append((number, start(job, device, self.most)))

    def collect(self, stopped: Callable[[], int]) -> int:
        """Removes the jobs that have ended. Returns the exit status of the first one that failed by itself, or 0."""
        failed = 0
        for number, each in list(self.running):
            code = each.process.poll()
            if code is None:
                continue
            self.running.remove((number, each))
            each.end()
            if code == 0:
                self.done += 1
                seconds = time.monotonic() - each.started
                say_aside(f"{self.done} of {self.count} runs finished: {each.job.title} ({seconds:.0f} s)")
                self.finished(number)
            elif not failed and not stopped():
                failed = code if code > 0 else 128 - code
                log = each.job.log
                say_aside(f"{each.job.title} ended with status {failed}; {log}:\n{last_lines(log)}")
        return failed

    def stop(self) -> None:
        """Stops all running jobs, which save a checkpoint."""
        for _, each in self.running:
            each.process.terminate()
        for _, each in self.running:
            each.end()


@contextmanager
def noted_signals() -> Iterator[Callable[[], int]]:
    """Returns a context in which SIGINT, SIGTERM and SIGHUP (a closed terminal) do not end the process, with a function
    that returns the number of the first signal, 0 if there was none. An ignored signal (`nohup`) remains ignored."""
    received: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in numbers}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def start(job: Job, device: int, most: int) -> Running:
    """Starts the process of a job. `device` is a number from 0 to `most` - 1 that no other running job has."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [path for path in (root, os.environ.get("PYTHONPATH")) if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), IS_JOB: "1"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // most)))
    if torch.cuda.device_count() > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(
            ","
        )
        environment["CUDA_VISIBLE_DEVICES"] = visible[device % len(visible)]
    make_folder(job.log.parent)
    with open_for_append(job.log) as log:
        command = [sys.executable, "-m", "chopmix.commands.cli", "train", *job.arguments]
        # a session of its own: Ctrl-C reaches only this process, which then stops the jobs
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    return Running(job, process, device, time.monotonic())


def end_with_parent() -> None:
    """In the process of a job: sends SIGTERM to this process when its parent has ended, even if the parent was killed.
    The system then closes the pipe that is the standard input of this process. Does nothing in other processes."""
    if os.environ.pop(IS_JOB, None):  # not for the processes that this one starts
        threading.Thread(target=lambda: os.read(0, 1) or os.kill(os.getpid(), signal.SIGTERM), daemon=True).start()


def last_lines(file: Path) -> str:
    """Returns the last LINES lines of a text file."""
    with open(file, errors="replace") as lines:
        return "".join(deque(lines, LINES)).rstrip()
