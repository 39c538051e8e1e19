"""A Hugging Face tokenizer in a separate process, with limits on its time and memory.

A `tokenizer.json` from someone else is not trusted. Its regular expressions may never finish, and its replacements may
turn one letter into a gigabyte. A panic of the library prints a backtrace and may end the process.
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

FIXED_SECONDS, SPEED, GROWTH = 2.0, 20_000, 2**30
"""The limits of a request: `FIXED_SECONDS` of CPU time plus one second for every `SPEED` characters (or ids), and
`GROWTH` bytes of memory in addition to the memory of the loaded tokenizer."""


class CoderProcess:
    """A process with one tokenizer, which starts at the first request. Threads may share the object. Requests raise
    DataError if the tokenizer fails or exceeds the limits of time or memory."""

    def __init__(self, text: str):
        """`text`: the content of the `tokenizer.json`."""
        self.text, self.lock = text, threading.Lock()
        self.process: subprocess.Popen | None = None
        self.owner = os.getpid()
        """The id of the process that started the tokenizer's process. A fork of this process starts another one."""

    def encode(self, texts: Sequence[str], specials: bool = False) -> list[list[int]]:
        """Returns the ids of each text. With `specials` the tokenizer adds the special ids of its template."""
        return self._ask({"encode": list(texts), "specials": specials}, sum(map(len, texts)))

    def decode(self, ids: Sequence[int], specials: bool) -> str:
        """Returns the text of ids. With `specials` the text includes the names of special ids."""
        return self._ask({"decode": list(ids), "specials": specials}, len(ids))

    def _ask(self, request: dict[str, Any], size: int) -> Any:
        seconds = FIXED_SECONDS + size / SPEED
        with self.lock:
            self._start()
            try:
                self.process.stdin.write(_line({**request, "seconds": seconds}))
                self.process.stdin.flush()
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            except BaseException:  # Ctrl-C: a late answer would be mistaken for the answer to the next request
                _end(self.process, self.owner)
                raise
            if not answer:
                raise DataError(_why(self.process.wait(), seconds))
        response = json.loads(answer)
        if "error" in response:
            raise DataError(response["error"])
        return response["result"]

    def _start(self) -> None:
        """Starts the process if it is not running."""
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            self.owner = os.getpid()
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(Path(coder_program.__file__)), str(GROWTH)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,  # panics are printed to standard error
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )  # fmt: skip
            weakref.finalize(self, _end, self.process, self.owner)
            with suppress(BrokenPipeError):  # the next request reports the error
                self.process.stdin.write(_line(self.text))


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _why(status: int, seconds: float) -> str:
    """Returns the reason why a process ended without an answer. `status` is the exit status of the process, `seconds`
    the limit of the request."""
    if status == -signal.SIGPROF:
        return f"it takes more than {seconds:.0f} seconds; its regular expressions are too slow"
    return f"it takes more than {GROWTH / 2**20:,.0f} MiB of memory, or fails ({status})"


def _end(process: subprocess.Popen, owner: int) -> None:
    """Ends the process if the current process has started it."""
    if owner == os.getpid():
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
