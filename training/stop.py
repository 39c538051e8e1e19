"""Ctrl-C and SIGTERM request a stop: the current step is finished, then the run is saved."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

from ..data.processes import Processes


class StopRequest:
    """A context manager. Inside the context, a first SIGINT (Ctrl-C) or SIGTERM requests a stop instead of ending the
    process. Every later SIGINT raises KeyboardInterrupt at once, and after `steps_done` also the first signal ends the
    process (SIGTERM: SystemExit). If a library turns this exception into another one, or ignores it, KeyboardInterrupt
    is raised again at the end of the context.

    Several processes stop at the same step: in every step the processes exchange how many of them got a signal, and
    pass this number to `receive`.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self.agreed = self.at_once = self.is_last_step_done = False
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
        if self.at_once and (error is None or isinstance(error, Exception)):
            raise KeyboardInterrupt from error

    def steps_done(self) -> None:
        """Ends the process if a stop was requested, and from now on at the first signal: after the last step there is
        no step at which the run could stop, but the evaluation at the end can take long."""
        self.is_last_step_done = True
        if self.signal is not None:
            self._end(self.signal)

    def _end(self, number: int) -> None:
        self.at_once = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.is_last_step_done or (self.signal is not None and number == signal.SIGINT):
            self._end(number)
        self.signal = signal.Signals(number)
        if "RANK" not in os.environ:  # torchrun prints which signals it sends
            print(f"\n{self.signal.name}: stopping after this step; Ctrl-C stops at once", file=sys.stderr, flush=True)

    def receive(self, votes: float) -> None:
        """Requests a stop if `votes`, the number of processes that got a signal (`Share.stop_votes`), is not 0."""
        if votes:
            self.agreed, self.signal = True, self.signal or signal.SIGTERM

    def requested(self, processes: Processes) -> bool:
        """Returns whether to stop before the next step. The result is the same in all processes."""
        return self.signal is not None if processes.world_size == 1 else self.agreed
