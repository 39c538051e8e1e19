"""A Hugging Face tokenizer in a process of its own, with bounds on its time and its memory.

A `tokenizer.json` is somebody else's program: its regular expressions may take forever, its replacements may make a
gigabyte of a letter, and where the library cannot go on it panics, which prints a backtrace and may end the process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...files.reading import DataError
from ..encoding import coder_program

SECONDS, SPEED, GROWTH = 2.0, 20_000, 2**30
"""CPU seconds that a request may take, and characters (or ids) for each of which there is one more; bytes of memory
that requests may take beyond those of the tokenizer itself."""


class CoderProcess:
    """The process of one tokenizer, started when it is first asked. Threads may share it. Requests raise DataError
    where the tokenizer cannot answer, or goes beyond its time or its memory."""

    def __init__(self, text: str):
        """`text`: the content of the `tokenizer.json`."""
        self.text, self.lock = text, threading.Lock()
        self.process: subprocess.Popen | None = None
        self.owner = os.getpid()
        """The process that started it: one that was forked needs its own."""

    def encode(self, texts: Sequence[str], specials: bool = False) -> list[list[int]]:
        """The ids of each text, with `specials` between the special ids of its template."""
        return self._ask({"encode": list(texts), "specials": specials}, sum(map(len, texts)))

    def decode(self, ids: Sequence[int], specials: bool) -> str:
        """The text of ids, with `specials` the printable names of special ones."""
        return self._ask({"decode": list(ids), "specials": specials}, len(ids))

    def _ask(self, request: dict[str, Any], size: int) -> Any:
        seconds = SECONDS + size / SPEED
        with self.lock:
            self._start()
            try:
                self.process.stdin.write(_line({**request, "seconds": seconds}))
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:  # Ctrl-C: the answer may still come, and would be taken for that to the next request
                _end(self.process, self.owner)
                raise
            if not answer:
                raise DataError(_why(self.process.wait(), seconds))
        found = json.loads(answer)
        if "error" in found:
            raise DataError(found["error"])
        return found["found"]

    def _start(self) -> None:
        """Start the process where it does not run."""
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            self.owner = os.getpid()
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(Path(coder_program.__file__)), str(GROWTH)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,  # where panics are printed
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
            weakref.finalize(self, _end, self.process, self.owner)
            with suppress(BrokenPipeError):  # told when it is asked
                self.process.stdin.write(_line(self.text))


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _why(status: int, seconds: float) -> str:
    """Why a process has ended without an answer."""
    if status == -signal.SIGPROF:
        return f"it takes more than {seconds:.0f} seconds; its regular expressions are too slow"
    return f"it takes more than {GROWTH / 2**20:,.0f} MiB of memory, or fails ({status})"


def _end(process: subprocess.Popen, owner: int) -> None:
    """End a process that this one has started."""
    if owner == os.getpid():
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
