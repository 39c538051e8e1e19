"""SIGTERM as an exception, so that a command that is ended deletes its incomplete files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def orderly_end() -> Iterator[None]:
    """Returns a context in which SIGTERM raises SystemExit(143). Then `finally` blocks run and delete incomplete files.
    The context has no effect outside the main thread, and none under torchrun, whose processes may wait for each other
    in code without signal handlers."""
    if "RANK" in os.environ or threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
