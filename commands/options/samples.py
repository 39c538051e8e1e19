"""Samples given on the command line: `--input NAME=VALUE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...tokenizers.files.reading import matching

if TYPE_CHECKING:
    from ...experiment.run import Run


def add_inputs(command: argparse.ArgumentParser, required: bool = False) -> None:
    """Add the repeatable option --input NAME=VALUE."""
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=VALUE", required=required,
        help="a file for an input, or its text; repeat it for other inputs, and for more samples",
    )  # fmt: skip


def given_samples(pairs: Sequence[str], run: Run, reading: bool = False) -> list[dict[str, str]]:
    """Samples from `NAME=VALUE` pairs: several values of one name are several samples; a single value goes with all.

        ["image=a.png", "image=b.png", "operator=+"]
        [{"image": "a.png", "operator": "+"}, {"image": "b.png", "operator": "+"}]

    A value with `*` stands for the files it matches, unless the input is a text. Raises RunError where the numbers of
    values do not agree, and for the input that the run generates, unless samples are only read (`reading`: embed)."""
    from ...experiment.folder.reading import RunError

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
