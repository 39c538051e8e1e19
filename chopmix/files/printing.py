"""Texts for terminals: numbers, durations, lists of names, and the escaping of untrusted text (data, file names,
generated text). Escaped text cannot control a terminal.

This module does not import torch, because the command line reports wrong options before it imports torch.
"""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Matches the characters that are escaped: control characters other than tab and newline, and lone surrogates. Python
decodes bytes of file names that are not UTF-8 to lone surrogates."""


LOGGER = logging.getLogger("chopmix")
"""The logger of Python's `logging` that receives every printed message and progress line, at the level INFO, and
warnings at the level WARNING. By default it has no handler that writes them a second time."""
LOGGER.addHandler(logging.NullHandler())


def log(text: str) -> None:
    """Passes a message to `LOGGER`."""
    LOGGER.log(logging.WARNING if text.startswith("warning") else logging.INFO, "%s", text)


SHOWN = [False]
"""Whether messages are also printed to standard error, and progress bars are drawn there (see `on_terminal`)."""


@contextmanager
def on_terminal() -> Iterator[None]:
    """A context in which messages are printed and progress bars are drawn, as in a command. Without it, as in Python,
    messages are only passed to `LOGGER`."""
    before, SHOWN[0] = SHOWN[0], True
    try:
        yield
    finally:
        SHOWN[0] = before


def say_aside(text: str) -> None:
    """Passes a message to `LOGGER`. In a command, also prints it to standard error, so that standard output contains
    only results."""
    text = printable(text)
    log(text)
    if SHOWN[0]:
        print(text, file=sys.stderr)


def printable(text: str) -> str:
    r"""Returns a text in which the characters of `STEERING` are escaped. One of them is `\x1b`, the start of terminal
    commands."""
    return STEERING.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    r"""Returns a text in which every character that cannot be printed is escaped, such as control characters and all
    line breaks: `\n`, `\x85`, `\u2028`."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def shell_word(path: object) -> str:
    """Returns a path as an argument of a printed command: quoted, in one line, and not taken for an option."""
    text = str(path)
    return one_line(shlex.quote(f"./{text}" if text.startswith("-") else text))


def as_written(text: str) -> str:
    """Returns the form of `text` for standard output. If standard output is a terminal, returns `printable(text)`. If
    it is a file or a pipe, only lone surrogates are escaped."""
    return printable(text) if sys.stdout.isatty() else text.encode(errors="backslashreplace").decode()


def json_line(value: Any) -> str:
    """Returns a value as one line of JSON. The characters of `STEERING` are escaped; all other non-ASCII characters are
    not."""
    text = json.dumps(value, ensure_ascii=False)
    return STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def plain_console(**options: Any) -> Console:
    """Returns a `rich.console.Console` that escapes texts with `printable`, and prints markup (`[red]`) and emoji names
    (`:dog:`) as they are. `options` are the other arguments of Console."""
    from rich.console import Console

    class Plain(Console):
        def render_str(self, text, **arguments):
            return super().render_str(printable(text), **arguments)

    return Plain(markup=False, emoji=False, **options)


def wide_console() -> Console:
    """Returns a console on standard output. A terminal keeps its width; a file has 240 columns, so no table is cut."""
    return plain_console(width=None if sys.stdout.isatty() else 240)


def figure_text(value: float) -> str:
    """Returns a number as text for a line or a table: an integer like `1,256`, any other number with four decimals
    (`0.1235`)."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def listed(names: Sequence[str], most: int = 50) -> str:
    """Returns the names separated by commas, at most `most` of them, followed by text such as ` and 12 more`. Returns
    `nothing` if there are no names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"


def duration(seconds: float) -> str:
    """Returns a duration as text: 3725 seconds become '1:02:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def scaled(value: float, unit: str) -> str:
    """Returns a value with its unit and a decimal prefix: 1_234_567 with unit B becomes '1.23 MB', 12 becomes '12
    B'."""
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}{unit}"
    return f"{value:.3g} {unit}"
