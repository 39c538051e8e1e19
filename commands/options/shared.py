"""Arguments that several commands share: the checkpoint and the device of a run; the modules and hosts that a run may
use (`--trust`, `--remote`); beam search; a configuration (`CONFIG [KEY=VALUE...]`); samples (`--input NAME=VALUE`)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.errors import UsageError
from ...files.reading import matching

if TYPE_CHECKING:
    from ...experiment.run import Run
    from ...experiment.settings.config import Config
    from ...files.trust import Trust

DATA_HELP = "a data set as in a YAML file, a folder, a manifest, shards, or texts"
SEARCH_KEYS = ("beams", "length_penalty", "no_repeat")


ADAPTERS = "runs whose adapters (training.adapters) are added to the weights: A,B, or none (default: those of RUN)"
"""The help text of --adapters."""


def add_checkpoint(command: argparse.ArgumentParser) -> None:
    """Adds KEY=VALUE (options that can be changed after training), --checkpoint (which weights of a run are loaded),
    --adapters, --device, --trust and --remote. Add other arguments without a flag before."""
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. tasks.picture.solver=heun")
    command.add_argument("--checkpoint", choices=("best", "last"), default="best", help="default: best")
    command.add_argument("--adapters", action="extend", type=runs, metavar="RUN", help=ADAPTERS)
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_trust(command)


def add_trust(command: argparse.ArgumentParser) -> None:
    """Adds --trust (modules outside chopmix that a run may use) and --remote (hosts from which data may be read)."""
    command.add_argument(
        "--trust", action="extend", type=names, default=[], metavar="MODULE",
        help="a module outside chopmix that the run may execute, such as a user-defined tokenizer; several: A,B",
    )  # fmt: skip
    command.add_argument(
        "--remote", action="extend", type=names, default=[], metavar="HOST",
        help="a host from which data may be read; several: A,B",
    )  # fmt: skip


def names(text: str) -> list[str]:
    """Returns names that are separated by commas."""
    return [name for name in text.split(",") if name]


def runs(text: str) -> list[str]:
    """Returns the folders in a list such as `runs/law,runs/code`. The word `none` gives an empty list."""
    return [] if text == "none" else names(text)


def trust_of(options: argparse.Namespace) -> Trust:
    """Returns the modules and hosts that the user allows with `--trust` and `--remote`."""
    from ...files.trust import Trust

    return Trust.of(options.trust, options.remote)


def load(options: argparse.Namespace) -> Run:
    """Loads the run `options.run` with the options of `add_checkpoint`. Raises UsageError if the folder is not a run,
    and CheckpointError if all of its checkpoints are damaged."""
    from ...experiment.run import load_run

    return load_run(options.run, options.checkpoint, options.device, options.trust, options.remote, options.overrides,
                    options.adapters)  # fmt: skip


def page_path(output: str | None, default: Path) -> Path:
    """Returns the file of a page: that of `--output`, or `default`. Raises UsageError if it has the ending of another
    kind of file."""

    if output and Path(output).suffix.lower() not in ("", ".html", ".htm"):
        raise UsageError(f"--output {output}: the name of the file must end in .html")
    return Path(output or default)


@contextmanager
def with_output_hint(option: str) -> Iterator[None]:
    """Returns a context for writing into the folder of a run. If an OSError occurs, its message also names the `option`
    that selects another folder."""
    try:
        yield
    except OSError as error:
        reason = str(error.strerror or error)
        raise OSError(error.errno, f"{reason}; choose another location with {option}") from error


def add_search(command: argparse.ArgumentParser) -> None:
    """Adds the options of beam search: --beams, --length-penalty, --no-repeat."""
    command.add_argument(
        "--beams", type=int, metavar="N",
        help="generate texts by beam search with N beams (1: greedy); default: the setting of the task",
    )  # fmt: skip
    command.add_argument("--length-penalty", type=float, metavar="A", help="values above 1 prefer longer texts")
    command.add_argument("--no-repeat", type=int, metavar="N", help="no sequence of N tokens occurs twice in a text")


def search_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of beam search that the user has set, by field of `Search`: `{"beams": 4}` for `--beams
    4`."""
    return {name: getattr(options, name) for name in SEARCH_KEYS if getattr(options, name) is not None}


def add_config(command: argparse.ArgumentParser) -> None:
    """Adds CONFIG (a YAML file or the folder of a run), KEY=VALUE overrides, --trust and --remote."""
    command.add_argument("config", metavar="CONFIG", help="a YAML file or the folder of a run")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add_trust(command)


def config_of(options: argparse.Namespace) -> Config:
    """Returns the configuration of a YAML file, of the folder of a run, or of a run that chopmix contains, with
    overrides. Raises ConfigError with all problems."""
    from ...experiment.run_names import folder_of_run
    from ...experiment.settings.config import load_config

    return load_config(folder_of_run(options.config), options.overrides, trust_of(options))


def add_inputs(command: argparse.ArgumentParser, stdin: bool = False) -> None:
    """Adds the repeatable option --input NAME=VALUE. `stdin`: its value may also be `-`."""
    also = "; `-`: read JSON lines from standard input" if stdin else ""
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE",
        help=f"a file, a text, or numbers such as [[20, 1013]]; repeat it for other inputs and more samples{also}",
    )  # fmt: skip


def parse_samples(pairs: Sequence[str], run: Run) -> list[dict[str, Any]]:
    """Returns samples from `NAME=VALUE` pairs. If a name has several values, each value is for a separate sample. If a
    name has a single value, all samples have this value.

        ["image=a.png", "image=b.png", "operator=+"]
        [{"image": "a.png", "operator": "+"}, {"image": "b.png", "operator": "+"}]

    A value with `*` is a pattern for file names, and a value that begins with `[` is a JSON list of numbers, unless the
    input is a text. Raises UsageError if two names have different numbers of values above 1, if the value of an input
    that is not a text is a folder, or if a pair has no `=`."""
    from ...files.records import parse_json

    values: dict[str, list[Any]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--input {pair!r}: write NAME=VALUE, for example image=cat.jpg")
        is_file = name in run.choppers and run.choppers[name].kind != "text"
        if is_file and os.path.isdir(value):
            raise UsageError(f"--input {pair}: {value} is a folder. Pass its files: --input '{name}={value}/**/*.*'")
        matched: list[Any] = matching(value) if "*" in value and is_file else []
        if is_file and value.startswith("[") and not matched and not os.path.exists(value):
            matched = [parse_json(value, f"--input {name}")]
        values.setdefault(name, []).extend(matched or [value])
    count = max(map(len, values.values()))
    if unequal := [name for name, column in values.items() if len(column) not in (1, count)]:
        number = len(values[unequal[0]])
        raise UsageError(f"--input {unequal[0]}: {number} values, but another input has {count}; pass 1 or {count}")
    return [{name: column[n % len(column)] for name, column in values.items()} for n in range(count)]
