"""A run in a process of its own, begun, waited for, signalled."""

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

from killing.inside import obey
from killing.plans import FORKS, PATIENCE, PRELOADED, Plan

PROGRAM = Path(__file__).parent.parent / "kill.py"
"""What a new interpreter runs."""


class Started:
    """A run in a process and a session of its own."""

    def __init__(self, plan: Plan, fresh: bool = False):
        self.fresh, self.began = fresh, time.monotonic()
        if fresh:
            given = json.dumps(asdict(plan))
            self.process: Any = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--obey", given], start_new_session=True, stdin=subprocess.DEVNULL
            )
        else:
            self.process = FORKS.Process(target=obey, args=(plan,))
            self.process.start()

    @property
    def pid(self) -> int:
        """The process, and its session."""
        return self.process.pid

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """The exit status, that of a signal negative; None for one that is still running then."""
        if not self.fresh:
            self.process.join(seconds)
            return self.process.exitcode
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: int) -> None:
        """A signal, where it is still there."""
        if self.wait(0) is None:
            os.kill(self.pid, number)

    def ended(self, seconds: float = PATIENCE) -> int:
        """The exit status; one that does not end by itself is killed with all of its session: status -99."""
        status = self.wait(seconds)
        if status is None:
            for process in session(self.pid):
                os.kill(process, signal.SIGKILL)
            self.wait()
        return -99 if status is None else status


def prepare_forks(experiments: Iterable[str]) -> None:
    """Have everything imported once, in the process that runs are forked from."""
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKS.set_forkserver_preload([module for name in ("", *experiments) for module in PRELOADED[name]])
    first = FORKS.Process(target=int)
    first.start(), first.join()


def session(number: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(own) == number and state not in "ZX":
            found.append(int(folder.name))
    return found


def left_processes(number: int, seconds: float = 10.0) -> list[str]:
    """Processes of a run that are there after so many seconds still."""
    end = time.monotonic() + seconds
    while (found := session(number)) and time.monotonic() < end:
        time.sleep(0.02)
    return [f"process {each} is left" for each in found]
