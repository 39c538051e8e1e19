"""A function in a process of its own, which is stopped after a number of seconds. The process imports only what the
function needs: this file does not import torch."""

from __future__ import annotations

import io
import json
import pickle
import time
import warnings
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from ..data.workers import SPAWN, deaf, end_with_parent, pickled

Arrays = np.ndarray | Sequence[np.ndarray]
"""An array, or arrays with one axis and different lengths."""
STARTING = 120.0
"""The number of seconds after which a process that has not started is stopped."""


class Outcome(NamedTuple):
    """The result of a function that ran in a process of its own."""

    value: Any
    seconds: float
    problem: str = ""
    """Why there is no value; empty if there is."""


def in_process(function: partial, limit: float) -> Outcome:
    """Calls a function in a process of its own, and stops it after `limit` seconds. The function returns arrays (see
    `packed`) or None."""
    try:
        content = pickled(function)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        return Outcome(None, 0.0, f"it cannot be sent to another process: {error}")
    connection, other = SPAWN.Pipe()
    with deaf():
        process = SPAWN.Process(target=serve, args=(other,), daemon=True, name="chopmix simple model")
        process.start()
    other.close()
    try:
        connection.send_bytes(content)
        if not connection.poll(STARTING) or connection.recv_bytes() != STARTED:
            return Outcome(None, 0.0, "its process did not start")
        if not connection.poll(limit):
            return Outcome(None, limit, f"stopped after {limit:g} s")
        seconds, problem = json.loads(connection.recv_bytes())
        content = connection.recv_bytes()
        return Outcome(unpacked(content) if content else None, seconds, problem)
    except (EOFError, OSError):
        return Outcome(None, 0.0, "its process ended without a result; there may be too little memory")
    finally:
        connection.close()
        process.kill()
        process.join()


STARTED = b"started"
"""The first message of a process: it has imported what it needs."""


def serve(connection: Connection) -> None:
    """The program of the process: calls the function that it receives, and sends the result."""
    end_with_parent()
    function = pickle.loads(connection.recv_bytes())
    connection.send_bytes(STARTED)
    begin = time.perf_counter()
    content, problem = b"", ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = function()
            content = b"" if result is None else packed(result)
        except Exception as error:  # a model that cannot be fitted to these data
            problem = f"{type(error).__name__}: {error}".split("\n")[0]
    connection.send_bytes(json.dumps([time.perf_counter() - begin, problem]).encode())
    connection.send_bytes(content)


def packed(results: Sequence[Arrays]) -> bytes:
    """Returns arrays, or lists of arrays, as bytes, which can be read without executing code."""
    content = {}
    for number, result in enumerate(results):
        is_array = isinstance(result, np.ndarray)
        content[f"{number}.rows"] = result if is_array else np.concatenate([*result, np.empty(0)])
        content[f"{number}.lengths"] = np.array([] if is_array else [len(each) for each in result], dtype=np.int64)
        content[f"{number}.is_array"] = np.array(is_array)
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def unpacked(content: bytes) -> list[Arrays]:
    """Returns the results in the bytes of `packed`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        count = len(stored.files) // 3
        results: list[Arrays] = []
        for number in range(count):
            rows, ends = stored[f"{number}.rows"], stored[f"{number}.lengths"].cumsum()
            results.append(rows if stored[f"{number}.is_array"] else np.split(rows, ends)[: len(ends)])
    return results
