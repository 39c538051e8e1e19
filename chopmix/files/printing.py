"""Escaping foreign texts (data, file names, what a model generates) so that they cannot control a terminal.

Nothing here needs torch: the command line reports a wrong option before it is imported.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that are escaped: control characters but tab and newline, and lone surrogates, which are what Python makes
of bytes that are not UTF-8."""


def printable(text: str) -> str:
    r"""A text with control characters escaped: `\x1b` for the one that begins a terminal's commands."""
    return STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def as_written(text: str) -> str:
    """A text for standard output: `printable` for a terminal; for a file or pipe only lone surrogates are escaped."""
    return printable(text) if sys.stdout.isatty() else text.encode(errors="backslashreplace").decode()


def json_line(value: Any) -> str:
    """A value as one line of JSON, in which control characters are escaped and other non-ASCII characters are not."""
    text = json.dumps(value, ensure_ascii=False)
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain_console(**options: Any) -> Console:
    """A console of rich, with these options, that shows the texts of lines and tables as they are: `printable`, and
    neither `[red]` nor `:dog:` means anything."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text, **how):
            return super().render_str(printable(text), **how)

    return Plain(markup=False, emoji=False, **options)


def figure_text(value: float) -> str:
    """A figure for a line or a table: a count (a whole number) as `1,256`, any other with four decimals: `0.1235`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
