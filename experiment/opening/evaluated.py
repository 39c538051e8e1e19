"""A trained run, evaluated and attributed on a split of its own data or of another data set."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ...data.base import Dataset
from ...data.split import Split
from ...inference.attribution import Attribution, measure_attribution
from ...inference.evaluation import Measured, measured
from ...inference.sheet import draws, generated_rows, page
from ...tokenizers.files.writing import write_text
from ...training.record.metrics_file import write_board
from ..folder.reading import RunError, say_aside
from .given import own_split
from .opened import Opened


def evaluated(
    run: Opened, split: str, dataset: Dataset | None, rows: int = 64, inputs: Collection[str] | None = None,
    output: Path | None = None,
) -> Measured:  # fmt: skip
    """The figures of a split, with the number of samples of each; see `Run.evaluate`."""
    run.check_heads()
    if unknown := [name for name in inputs or () if name not in run.choppers]:
        raise RunError(f"{run.folder} has no input {unknown[0]!r}; possible: {', '.join(run.choppers)}")
    data, folder = own_split(run, split, dataset), output or writable(run.folder)
    with run.arithmetic():
        found = measured(run.model, run.tasks, data, rows=rows, pictures=folder, inputs=inputs)
        found.check()
        if folder:
            write_sheet(run, data, folder)
    for line in data.unread.told():
        say_aside(line)
    if folder is None:
        say_aside(f"{run.folder}: no pictures can be written there; --output DIR writes to another place")
    return found


def write_sheet(run: Opened, data: Split, folder: Path) -> None:
    """Write a page of generated items of a split, `sheets/<split>.html`, where they are no text, and for TensorBoard
    `tensorboard/<split>` where the folder has such a folder."""
    if any(map(draws, run.tasks.values())) and data.samples is not None:
        rows = generated_rows(run.model, run.tasks, data, seed=0, most=run.config.evaluation.sample_tokens or 1)
        sheet = page(f"{run.name}, {data.name}", rows)
        write_text(folder / "sheets" / f"{data.name}.html", sheet, within=folder)
        board = folder / "tensorboard"
        if board.is_dir() and not board.is_symlink() and not (board / data.name).is_symlink():
            try:
                write_board(board / data.name, rows, run.step)
            except OSError as error:
                say_aside(f"{board / data.name}: not shown in TensorBoard: {error}")


def attributed(run: Opened, split: str, dataset: Dataset | None) -> dict[str, Attribution]:
    """Each task's `Attribution`; see `Run.attribution`."""
    data = own_split(run, split, dataset)
    if data.samples is None:
        raise RunError(f"{run.folder} reads one text: there are no inputs to compare")
    with run.arithmetic():
        return measure_attribution(run.model, run.tasks, data)


def writable(folder: Path) -> Path | None:
    """The run's folder, where pictures can be written to it, else None: not where a picture's name is taken by anything
    but a regular file, such as a link in a run from elsewhere, which would be followed."""
    every = [*folder.glob("confusion-*.png"), *folder.glob("sheets/*.html")]
    odd = [file for file in every if file.is_symlink() or not file.is_file()]
    odd += [each for each in [folder / "sheets"] if each.is_symlink()]
    return folder if os.access(folder, os.W_OK) and not odd else None
