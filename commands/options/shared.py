"""Arguments that several commands share: a run's checkpoint and device, trusted code, beam search; a configuration,
`CONFIG [KEY=VALUE...]`; samples, `--input NAME=VALUE`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...files.printing import plain_console
from ...files.reading import matching

if TYPE_CHECKING:
    from rich.console import Console

    from ...experiment.run import Run
    from ...experiment.settings.config import Config
    from ...files.trust import Trust

DATA_HELP = "a dataset as a YAML writes it, a folder, a manifest, shards, texts"
SEARCH_KEYS = ("beams", "length_penalty", "no_repeat")


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """Add --checkpoint (which weights of a run are loaded), --device, --trust and --remote."""
    command.add_argument("--checkpoint", choices=("best", "last"), default="best")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_trust(command)


def add_trust(command: argparse.ArgumentParser) -> None:
    """Add --trust (modules outside chopmix that a run may use) and --remote (hosts that its data may be read from)."""
    command.add_argument(
        "--trust", action="append", default=[], metavar="MODULE",
        help="a module outside chopmix that the run may use, such as its author's tokenizer; it is executed",
    )  # fmt: skip
    command.add_argument(
        "--remote", action="append", default=[], metavar="HOST", help="a host from which the run's data may be read"
    )


def trust_of(options: argparse.Namespace) -> Trust:
    """What the user allows files from someone else to do, by --trust and --remote."""
    from ...files.trust import Trust

    return Trust.of(options.trust, options.remote)


def load(options: argparse.Namespace) -> Run:
    """The run of `options.run`, at the checkpoint and on the device of `add_checkpoint`. Raises RunError where there is
    no run, CheckpointError where none of its checkpoints is whole."""
    from ...experiment.run import load_run

    return load_run(options.run, options.checkpoint, options.device, options.trust, options.remote)


@contextmanager
def or_elsewhere(option: str) -> Iterator[None]:
    """A context that writes files by default into the folder of a run: where that cannot be written to, the error also
    names the option that chooses another place."""
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error)
        raise OSError(error.errno, f"{reason}; {option} writes to another place") from error


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
    return plain_console(width=None if sys.stdout.isatty() else 240)


def add_config(command: argparse.ArgumentParser) -> None:
    """Add the arguments CONFIG (a YAML file or the folder of a run) and KEY=VALUE overrides, --trust and --remote."""
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or a run's folder")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add_trust(command)


def given_config(options: argparse.Namespace) -> Config:
    """The configuration of a YAML file or of a run's folder, with overrides. Raises ConfigError with all its
    problems."""
    from ...experiment.settings.config import load_config

    return load_config(options.config, options.overrides, trust_of(options))


def add_inputs(command: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the repeatable option --input NAME=VALUE."""
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", required=required,
        help="a file for an input, or its text; repeat it for other inputs, and for more samples",
    )  # fmt: skip


def given_samples(pairs: Sequence[str], run: Run) -> list[dict[str, str]]:
    """Samples from `NAME=VALUE` pairs: several values of one name are several samples; a single value goes with all.

        ["image=a.png", "image=b.png", "operator=+"]
        [{"image": "a.png", "operator": "+"}, {"image": "b.png", "operator": "+"}]

    A value with `*` stands for the files it matches, unless the input is a text. Raises RunError where the numbers of
    values do not agree, and for a folder."""
    from ...experiment.run_folder import RunError

    values: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise RunError(f"--input {pair!r}: write NAME=VALUE, such as image=cat.jpg")
        of_file = name in run.choppers and run.choppers[name].kind != "text"
        if of_file and os.path.isdir(value):
            raise RunError(f"--input {pair}: {value} is a folder; name its files, --input '{name}={value}/**/*.*'")
        matched = matching(value) if "*" in value and of_file else []
        values.setdefault(name, []).extend(matched or [value])
    count = max(map(len, values.values()))
    if wrong := [name for name, given in values.items() if len(given) not in (1, count)]:
        raise RunError(
            f"--input {wrong[0]}: {len(values[wrong[0]])} values beside {count} of another input; give 1 or {count}"
        )
    return [{name: given[n % len(given)] for name, given in values.items()} for n in range(count)]
