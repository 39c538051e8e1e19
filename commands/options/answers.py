"""Arguments of the commands that write one row per sample: `--output`, `--overwrite`, `--strict`, `--shard`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...files.errors import UsageError
from ...files.rows import ENDINGS, ending_of

if TYPE_CHECKING:
    from ...experiment.run import Run


def add_answers(
    command: argparse.ArgumentParser, help: str = "a .csv, .jsonl or .parquet file (default: print)"
) -> None:  # fmt: skip
    """Adds --output, --overwrite, --strict and --shard."""
    add_output(command, help)
    command.add_argument("--strict", action="store_true", help="exit with status 3 if a sample cannot be read")
    command.add_argument("--shard", metavar="I/N", help="only every N-th sample, from sample I; see `chopmix merge`")


def add_output(
    command: argparse.ArgumentParser, help: str = "a .csv, .jsonl or .parquet file (default: print)"
) -> None:  # fmt: skip
    """Adds --output and --overwrite."""
    command.add_argument("--output", metavar="FILE", help=help)
    command.add_argument("--overwrite", action="store_true", help="replace the file of --output if it exists")


def output_of(options: argparse.Namespace, endings: Sequence[str] = ENDINGS) -> Path | None:
    """Returns the file of --output, or None. Raises UsageError if it has none of these endings, if its folder does not
    exist, or if it exists and --overwrite is not set; also if --overwrite or --shard is set without --output."""

    if options.output is None:
        if unused := next((name for name in ("overwrite", "shard") if getattr(options, name, None)), ""):
            raise UsageError(f"--{unused} needs --output FILE")
        return None
    check_output(Path(options.output), options.overwrite, endings)
    return Path(options.output)


def check_output(path: Path, overwrite: bool, endings: Sequence[str] = ENDINGS, option: str = "--output") -> None:
    """Raises UsageError if the file of an option cannot be written, or if it exists and may not be replaced."""

    try:
        ending_of(path, endings)
        exists, in_folder = os.path.lexists(path), os.path.isdir(path.absolute().parent)
    except ValueError as error:  # also a name that no file can have
        raise UsageError(f"{option} {error}") from None
    if not in_folder:
        raise UsageError(f"{option} {path}: the folder {path.parent} does not exist")
    if exists and not overwrite:
        raise UsageError(f"{option} {path} exists; choose another name, or replace it with --overwrite")


def vectors_of(run: Run) -> list[str]:
    """Returns the columns of the run's predictions and of the true values that contain lists of a fixed length."""
    answers = [f"{name}.{key}" for name, task in run.tasks.items() for key in task.vectors]
    true = [(next(iter(task.needs.columns)), key) for task in run.tasks.values() for key in task.true_vectors]
    return [*answers, *(f"targets.{column}.{key}".removesuffix(".") for column, key in true)]
