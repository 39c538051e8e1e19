"""Arguments that several commands share: a run's checkpoint and device, trusted code, beam search."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ...experiment.run import Run


DATA_HELP = "a dataset as a YAML writes it, a folder, a manifest, shards, texts"
SEARCH_KEYS = ("beams", "length_penalty", "no_repeat")


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """Add --checkpoint (which weights of a run are loaded), --device and --trust."""
    command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_trust(command)


def add_trust(command: argparse.ArgumentParser) -> None:
    """Add --trust: modules outside chopmix whose code a run may name and so execute."""
    command.add_argument(
        "--trust", action="append", default=[], metavar="MODULE",
        help="a module outside chopmix that the run may use, such as its author's tokenizer; it is executed",
    )  # fmt: skip


def load(options: argparse.Namespace) -> Run:
    """The run of `options.run`, at the checkpoint and on the device of `add_checkpoint`. Raises RunError where there is
    no run, CheckpointError where none of its checkpoints is whole."""
    from ...experiment.run import load_run

    return load_run(options.run, options.checkpoint, options.device, options.trust)


def add_search(command: argparse.ArgumentParser) -> None:
    """Add the options of beam search: --beams, --length-penalty, --no-repeat."""
    command.add_argument(
        "--beams", type=int, metavar="N",
        help="search for texts with so many beams (1: greedily); what is not given is as the task says",
    )  # fmt: skip
    command.add_argument("--length-penalty", type=float, metavar="A", help="above 1: longer texts")
    command.add_argument("--no-repeat", type=int, metavar="N", help="no N tokens in a row twice in a text")


def search_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options of beam search that were given, by field of `Search`: `--beams 4` gives `{"beams": 4}`."""
    return {name: getattr(options, name) for name in SEARCH_KEYS if getattr(options, name) is not None}


def wide_console() -> Console:
    """A console on standard output: as wide as the terminal, else 240 columns, so that no table is cut in a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 240)
