"""Starts runs in separate processes, waits for them and sends them signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from killing.inside import run_plan
from killing.plans import FORKS, PRELOADED, TIMEOUT, Plan

PROGRAM = Path(__file__).parent.parent / "kill.py"
"""The script that a new interpreter runs."""


class Started:
    """A run in a separate process and session: a fork or, if `fresh`, a new interpreter."""

    def __init__(self, plan: Plan, fresh: bool = False):
        self.fresh, self.start = fresh, time.monotonic()
        if fresh:
            fields = json.dumps(asdict(plan))
            self.process: Any = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--obey", fields], start_new_session=True, stdin=subprocess.DEVNULL
            )
        else:
            self.process = FORKS.Process(target=run_plan, args=(plan,))
            self.process.start()

    @property
    def pid(self) -> int:
        """The id of the process and of its session."""
        return self.process.pid

    def wait(self, seconds: float = TIMEOUT) -> int | None:
        """Returns the exit status (negative for a signal), or None if the process is still running."""
        if not self.fresh:
            self.process.join(seconds)
            return self.process.exitcode
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: int) -> None:
        """Sends a signal if the process is still running."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def ended(self, seconds: float = TIMEOUT) -> int:
        """Returns the exit status. If the process does not end, its session is killed and -99 is returned."""
        status = self.wait(seconds)
        if status is None:
            for process in session(self.pid):
                os.kill(process, signal.SIGKILL)
            self.wait()
        return -99 if status is None else status


def prepare_forks(experiments: Iterable[str]) -> None:
    """Imports all modules once in the process from which runs are forked."""
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload([module for name in ("", *experiments) for module in PRELOADED[name]])
    first = FORKS.Process(target=int)
    first.start(), first.join()


def session(number: int) -> list[int]:
    """Returns the ids of the running processes of a session."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session_id = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(session_id) == number and state not in "ZX":
            processes.append(int(folder.name))
    return processes


def left_processes(number: int, seconds: float = 10.0) -> list[str]:
    """Returns a line for every process of a run that still exists after a number of seconds."""
    end = time.monotonic() + seconds
    while (processes := session(number)) and time.monotonic() < end:
        time.sleep(0.02)
    return [f"process {process} is left" for process in processes]
