"""Processes that work for this one, and end with it."""

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
    """In a worker: end with the process that asked for it, however that ends."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def workers_of(count: int, begin: Callable[..., None] = end_with_parent, *own: Any) -> ProcessPoolExecutor:
    """So many processes, each of which calls `begin(*own)` first, which calls `end_with_parent`. Not to be used in
    `with`, which waits for all that was asked for: `finally: pool.shutdown(cancel_futures=True)`."""
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that this process's threads hold
    return ProcessPoolExecutor(count, spawn, begin, own)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Block Ctrl-C (SIGINT) inside a `with`; processes started meanwhile inherit that: they end with this one, without
    a traceback of their own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
