"""Calls a function in a child process and measures its peak memory, for tests of limits of memory.

The child is forked from a server that has imported torch once. RLIMIT_AS does not work with torch, so the memory is
measured, not limited.
"""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from checkout import ROOT

sys.path.append(str(ROOT))  # for the children: the names of test modules begin with "tests."
STATUS = Path("/proc/self/status")
MODULES = [
    "chopmix.tokenizers.video", "chopmix.tokenizers.audio", "chopmix.tokenizers.score", "torchvision.transforms.v2",
    "soundfile", "mido", "pytest", "hypothesis", "chopmix.inference.report", "chopmix.projects.decision.steps",
    "chopmix.experiment.interchange.tokenizers",
]  # fmt: skip
"""Modules that the server imports before the first child, so that no child needs memory and time for them."""


class Measured(NamedTuple):
    """The result of a call in a child process, and its memory and time."""

    value: Any
    """The result; None if the call raised an error."""
    error: str
    """The error as `DataError: ...`; empty if there was no error."""
    mib: float
    """The peak of memory minus the memory before the call, in MiB."""
    seconds: float
    """CPU seconds."""
    warnings: list[str]
    """The warnings that a user would see."""


def measured(call: Callable, *arguments: Any) -> Measured:
    """Call a function of a module in a child process. Raises AssertionError if the child does not survive the call."""
    if not STATUS.exists():
        pytest.skip("memory is measured on Linux")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    here, there = context.Pipe()
    child = context.Process(target=_measure, args=(there, call, arguments))
    child.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        child.join()
        raise AssertionError(f"the child ended with {child.exitcode}") from None
    finally:
        child.join()


def _measure(pipe: Any, call: Callable, arguments: tuple) -> None:
    gc.freeze()  # a collection in the call would copy pages of the server
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak of memory
    before, started, value, error = _memory("VmRSS"), time.process_time(), None, ""
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        try:
            value = call(*arguments)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
    seconds, messages = time.process_time() - started, [str(each.message) for each in recorded]
    pipe.send(Measured(value, error, (_memory("VmHWM") - before) / 1024, seconds, messages))


def _memory(name: str) -> int:
    """A field of the status of the process, in KiB."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if line.startswith("Vm"))
    return int(lines[name].split()[0])
