"""Worker processes, which end together with this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def end_with_parent() -> None:
    """Called in a worker: ends it as soon as its parent process ends, for whatever reason."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def workers_of(count: int, begin: Callable[..., None] = end_with_parent, *arguments: Any) -> ProcessPoolExecutor:
    """Returns a pool of `count` processes. Each first calls `begin(*arguments)`, which must call `end_with_parent`. Do
    not use it in `with`, which waits for all submitted calls; use `finally: pool.shutdown(cancel_futures=True)`."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    return ProcessPoolExecutor(count, spawn, begin, arguments)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Blocks Ctrl-C (SIGINT) inside a `with`. Processes started there inherit the mask, so that they end with this
    process without printing a traceback."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
