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
    """Must be called in a worker process. Starts a thread that ends the worker as soon as its parent process has ended,
    for any reason."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def workers_of(count: int, begin: Callable[..., None] = end_with_parent, *arguments: Any) -> ProcessPoolExecutor:
    """Returns a pool of `count` processes. Each process first calls `begin(*arguments)`, which must call
    `end_with_parent`. Do not use the pool in a `with` statement, because `with` waits for all submitted calls; use
    `finally: pool.shutdown(cancel_futures=True)`."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that threads of this process hold
    return ProcessPoolExecutor(count, spawn, begin, arguments)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Blocks Ctrl-C (SIGINT) inside a `with` statement. Processes that are started inside it also block SIGINT. They
    end because their parent ends, without printing a traceback."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
