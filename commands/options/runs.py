"""A run on the command line, and how it is used: its checkpoint, its search."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ...experiment.run import Run


DATA_HELP = "a dataset as a YAML writes it, a folder, a manifest, shards, texts"
SEARCH_KEYS = ("beams", "length_penalty", "no_repeat")


# ------------------------------------------------------------------------------------------------------ options of runs


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """Which weights of a run are loaded, and where."""
    command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_trust(command)


def add_trust(command: argparse.ArgumentParser) -> None:
    """Which code outside chopmix a run may name."""
    command.add_argument(
        "--trust", action="append", default=[], metavar="MODULE",
        help="a module outside chopmix that the run may use, such as its author's tokenizer; it is executed",
    )  # fmt: skip


def load(options: argparse.Namespace) -> Run:
    """The run that a command names, with the code that its user trusts."""
    from ...experiment.run import load_run

    return load_run(options.run, options.checkpoint, options.device, options.trust)


# ----------------------------------------------------------------------------------------- configurations, or runs' own


def add_search(command: argparse.ArgumentParser) -> None:
    """How texts are searched for."""
    command.add_argument(
        "--beams", type=int, metavar="N",
        help="search for texts with so many beams (1: greedily); what is not given is as the task says",
    )  # fmt: skip
    command.add_argument("--length-penalty", type=float, metavar="A", help="above 1: longer texts")
    command.add_argument("--no-repeat", type=int, metavar="N", help="no N tokens in a row twice in a text")


def search_options(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line asks of the search for texts, to be put into each task's own."""
    return {name: getattr(options, name) for name in SEARCH_KEYS if getattr(options, name) is not None}


# --------------------------------------------------------------------------------------------------------------- tables


def wide_console() -> Console:
    """Standard output; as wide as a table wants it where nobody looks at a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)
