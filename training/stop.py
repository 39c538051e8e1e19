"""Ctrl-C and SIGTERM as requests to stop: the step in progress is finished, then the run is saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..data.processes import Processes


class StopRequest:
    """A context in which SIGINT and SIGTERM request a stop instead of ending the process. A SIGINT (Ctrl-C) after the
    first signal raises KeyboardInterrupt at once. If a library replaces it by another exception, the context raises
    KeyboardInterrupt again when it is left.

    Several processes stop at the same step: in every step they exchange the number of processes that got a signal, and
    pass it to `receive`.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.agreed = self.at_once = False
        self._previous = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *trace: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
        if self.at_once and isinstance(error, Exception):
            raise KeyboardInterrupt from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if "RANK" not in os.environ:  # torchrun prints which signals it sends
            print(f"\n{self.signal.name}: stopping after this step; Ctrl-C stops at once", file=sys.stderr, flush=True)

    def receive(self, votes: float) -> None:
        """Receive the number of processes that got a signal before this step (`Share.stop_votes`)."""
        if votes:
            self.agreed, self.signal = True, self.signal or signal.SIGTERM

    def requested(self, processes: Processes) -> bool:
        """Whether to stop before the next step. The result is the same in all processes."""
        return self.signal is not None if processes.world_size == 1 else self.agreed


@contextmanager
def orderly_end() -> Iterator[None]:
    """A context in which SIGTERM raises SystemExit(143), so that `finally` blocks delete incomplete files. It has no
    effect under torchrun, because its processes may wait for each other in code that handles no signals."""
    if "RANK" in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
