"""Ctrl-C and SIGTERM as a request: the step in progress is finished, the run is saved, and it says so."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

import torch

from .distribution import Processes


class StopRequest:
    """A context in which SIGINT and SIGTERM are noted instead of killing. A second Ctrl-C kills at once."""

    def __init__(self, check_every: int = 10):
        self.signal: signal.Signals | None = None
        self.check_every = check_every
        self._old = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        print(f"\n{self.signal.name}: stopping after this step; once more stops at once", file=sys.stderr, flush=True)

    def requested(self, processes: Processes, step: int) -> bool:
        """Whether to stop before this step. Several processes agree, every `check_every` steps."""
        if processes.count == 1:
            return self.signal is not None
        if step % self.check_every:
            return False
        flag = torch.tensor([float(self.signal is not None)], device=processes.device)
        if processes.sum(flag).item() and self.signal is None:
            self.signal = signal.SIGTERM
        return self.signal is not None
