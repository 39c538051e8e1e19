"""The options that several commands share, and what they stand for. Reads no torch: a parser is made of it for
`--help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..tokenizers.files.reading import matching

if TYPE_CHECKING:
    from rich.console import Console

    from ..experiment.run import Run
    from ..experiment.settings.config import Config

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
    from ..experiment.run import load_run

    return load_run(options.run, options.checkpoint, options.device, options.trust)


# ----------------------------------------------------------------------------------------- configurations, or runs' own


def add_config(command: argparse.ArgumentParser) -> None:
    """A YAML file with overrides, or the folder of a run."""
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or a run's folder")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add_trust(command)


def given_config(options: argparse.Namespace) -> Config:
    """The configuration that a command names by its YAML file, or by a run's folder. Raises RunError for a run without
    data."""
    from ..experiment.folder.reading import RunError, read_config
    from ..experiment.settings.config import load_config

    folder = Path(options.config)
    is_run = os.path.isfile(folder / "config.yaml") and not options.overrides
    config = read_config(folder, options.trust) if is_run else load_config(options.config, options.overrides)
    if config.data.dataset is None:
        raise RunError(f"{folder} was imported and has no data of its own: there is nothing to see")
    return config


# ----------------------------------------------------------------------------------------------------- samples: --input


def add_inputs(command: argparse.ArgumentParser, required: bool = False) -> None:
    """Samples of any of the run's inputs."""
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", required=required,
        help="a file for an input, or its text; repeat it for other inputs, and for more samples",
    )  # fmt: skip


def given_samples(pairs: Sequence[str], run: Run, reading: bool = False) -> list[dict[str, str]]:
    """Samples from `NAME=VALUE` pairs: several values of one name are several samples; one value goes with all of them.

    A value with `*` in it stands for the files it matches, but for a text. Raises RunError where the numbers of values
    do not agree, and, but for mere `reading`, for what the run is to write itself."""
    from ..experiment.folder.reading import RunError

    written = [task.target for task in run.tasks.values() if task.needs.generates]
    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RunError(f"--input {pair!r}: write NAME=VALUE, such as image=cat.jpg")
        is_text = name in run.choppers and run.choppers[name].text is not None
        if not reading and name in written and len(written) == len(run.tasks):
            raise RunError(f"--input {name}: this is what the run writes; generate's --prompt says how it begins")
        matched = matching(value) if "*" in value and not is_text else []
        values.setdefault(name, []).extend(matched or [value])
    count = max(map(len, values.values()))
    if wrong := [name for name, given in values.items() if len(given) not in (1, count)]:
        raise RunError(
            f"--input {wrong[0]}: {len(values[wrong[0]])} values beside {count} of another input; give 1 or {count}"
        )
    return [{name: given[n % len(given)] for name, given in values.items()} for n in range(count)]


# -------------------------------------------------------------------------------------------------- how texts are found


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
