"""Escaping of untrusted text (data, file names, generated text) so that it cannot control a terminal.

This module does not need torch: the command line reports a wrong option before it imports torch.
"""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that are escaped: control characters other than tab and newline, and lone surrogates, to which Python
decodes bytes that are not UTF-8."""


def printable(text: str) -> str:
    r"""Returns a text with control characters escaped, such as `\x1b`, which begins the commands of a terminal."""
    return STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


def as_written(text: str) -> str:
    """Returns `text` as it is written to standard output: on a terminal with control characters escaped (`printable`),
    in a file or pipe unchanged except that lone surrogates are escaped."""
    return printable(text) if sys.stdout.isatty() else text.encode(errors="backslashreplace").decode()


def json_line(value: Any) -> str:
    """Returns a value as one line of JSON. Control characters are escaped, other non-ASCII characters are not."""
    text = json.dumps(value, ensure_ascii=False)
    return STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain_console(**options: Any) -> Console:
    """Returns a console of rich that prints texts `printable` and without interpreting markup (`[red]`) or emoji
    (`:dog:`); `options` are those of rich's Console."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text, **arguments):
            return super().render_str(printable(text), **arguments)

    return Plain(markup=False, emoji=False, **options)


def figure_text(value: float) -> str:
    """Returns a number for a line or a table: an integer as `1,256`, any other number with four decimals: `0.1235`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
