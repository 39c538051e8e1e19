"""What is said to a terminal: texts of others (data, file names, what a model writes) must not steer it.

Nothing here needs torch: the command line tells of a wrong option before anything is imported.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from rich.markup import escape

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that are not shown: those that steer a terminal, but for tabs and ends of lines, and halves of characters,
which are what Python makes of bytes that are no UTF-8."""


def printable(text: str) -> str:
    r"""A text as it may be shown anywhere: `\x1b` for the character that begins a terminal's commands."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def as_written(text: str) -> str:
    """A text for standard output: printable where that is a terminal, as it is where a file takes it."""
    return printable(text) if sys.stdout.isatty() else text.encode(errors="backslashreplace").decode()


def json_line(value: Any) -> str:
    """A value as one line of JSON, its letters as they are and its other characters escaped, which changes no value."""
    text = json.dumps(value, ensure_ascii=False)
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def cell(text: str) -> str:
    """A text in a table: printable, and no markup, so that `[/red]` is shown as it is."""
    return escape(printable(text))
