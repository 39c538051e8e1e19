"""Worker processes, which end together with this process and do not run its program again."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from types import FunctionType
from typing import Any


class Process(SpawnProcess):
    """A process that starts without the program of its parent. Otherwise a script that has no `if __name__ ==
    "__main__":` would run once more in each process. Classes of the script do not exist in the process."""

    lock = threading.Lock()

    def start(self) -> None:
        with self.lock:
            main = vars(sys.modules["__main__"])
            names = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
            main["__spec__"] = None
            try:
                super().start()
            finally:
                main.update(names)


class Spawn(SpawnContext):
    """Starts processes of the class `Process`. They are not forks, which would copy locks that threads of this process
    hold."""

    Process = Process


SPAWN = Spawn()


class Pickler(pickle.Pickler):
    """Pickles values for a `Process`. Raises PicklingError for a class or function of the running script."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            raise pickle.PicklingError(f"{value.__qualname__} is defined in the script itself")
        return NotImplemented


def pickled(value: Any) -> bytes:
    """Returns a value for a `Process`. Raises PicklingError, TypeError or AttributeError if it cannot be sent."""
    content = io.BytesIO()
    Pickler(content, pickle.HIGHEST_PROTOCOL).dump(value)
    return content.getvalue()


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
    return ProcessPoolExecutor(count, SPAWN, begin, arguments)


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Blocks Ctrl-C (SIGINT) inside a `with` statement. Processes that are started inside it also block SIGINT. They
    end because their parent ends, without printing a traceback."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
