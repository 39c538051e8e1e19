"""A function in a process of its own, which is stopped after a number of seconds. The process imports only what the
function needs: this file does not import torch."""

from __future__ import annotations

import pickle
import time
import warnings
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from ..data.workers import SPAWN, deaf, end_with_parent, pickled

STARTING = 120.0
"""The number of seconds after which a process that has not started is stopped."""


class Outcome(NamedTuple):
    """The result of a function that ran in a process of its own."""

    value: Any
    seconds: float
    problem: str = ""
    """Why there is no value; empty if there is."""


def in_process(function: partial, limit: float) -> Outcome:
    """Calls a function in a process of its own, and stops it after `limit` seconds."""
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
        if not connection.poll(STARTING) or connection.recv() != STARTED:
            return Outcome(None, 0.0, "its process did not start")
        if not connection.poll(limit):
            return Outcome(None, limit, f"stopped after {limit:g} s")
        return connection.recv()
    except (EOFError, OSError):
        return Outcome(None, 0.0, "its process ended without a result; there may be too little memory")
    finally:
        connection.close()
        process.kill()
        process.join()


STARTED = "started"
"""The first message of a process: it has imported what it needs."""


def serve(connection: Connection) -> None:
    """The program of the process: calls the function that it receives, and sends the result."""
    end_with_parent()
    function = pickle.loads(connection.recv_bytes())
    connection.send(STARTED)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outcome = Outcome(function(), time.perf_counter() - begin)
        except Exception as error:  # a model that cannot be fitted to these data
            outcome = Outcome(None, time.perf_counter() - begin, f"{type(error).__name__}: {error}".split("\n")[0])
    connection.send(outcome)
