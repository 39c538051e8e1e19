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
    waiting, running, status = deque(enumerate(jobs)), list[tuple[int, Running]](), 0
    done = 0
    with noted_signals() as stopped:
        while waiting or running:
            while waiting and len(running) < most and not status and not stopped():
                number, job = waiting.popleft()
                used = {each.device for _, each in running}
                device = next(n for n in range(most) if n not in used)
                running.append((number, start(job, device, most)))
            for number, each in list(running):
                code = each.process.poll()
                if code is None:
                    continue
                running.remove((number, each))
                each.end()
                if code == 0:
                    done += 1
                    seconds = time.monotonic() - each.started
                    say_aside(f"{done} of {len(jobs)} runs finished: {each.job.title} ({seconds:.0f} s)")
                    finished(number)
                elif not status and not stopped():
                    status = code if code > 0 else 128 - code
                    say_aside(
                        f"{each.job.title} ended with status {status}; {each.job.log}:\n{last_lines(each.job.log)}"
                    )
            if (status or stopped()) and running:
                for _, each in running:
                    each.process.terminate()
                for _, each in running:
                    each.end()
                running.clear()
            if status or stopped():
                return status or 128 + stopped()
            time.sleep(TICK)
    return status


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
