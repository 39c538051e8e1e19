"""Cross-validation (`--folds 5`): the settings of a fold, its predictions, and the table of all folds."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from ..files.printing import figure_text, plain_console
from ..files.rows import row_file
from ..files.trust import Trust
from ..files.writing import atomic_file
from ..inference.answers import Answers
from .run import load_run
from .run_folder import RunError
from .settings.config import Config

FILE = "predictions.jsonl"
"""The file with the predictions for the validation samples of a fold, in the folder of its run, and of all folds, in
the folder that contains these runs."""


def division_of(options: argparse.Namespace) -> list[str]:
    """Returns the overrides for `--folds`, `--group` and `--stratify`. Raises RunError if a column is named without
    `--folds`."""
    columns = [(name, value) for name in ("group", "stratify") if (value := getattr(options, name)) is not None]
    if columns and not options.folds:
        raise RunError(f"--{columns[0][0]} needs --folds; without folds write data.split.{columns[0][0]}=COLUMN")
    return [f"data.split.{name}={value}" for name, value in [("folds", options.folds), *columns] if value is not None]


def write_predictions(config: Config, trust: Trust) -> None:
    """Write the predictions of the best checkpoint for the validation samples of a fold into `predictions.jsonl` in the
    folder of the run, one sample per line: {"fold": 0, "key": "a.png", "kind": {"class": "cat", ...}, "targets":
    {"label": "cat"}}, or with "error" for a sample that cannot be read (see `inference/answers.py`)."""
    run = load_run(config.out, trust=trust.modules, remote=trust.hosts)
    split = run.open("val")
    answers = Answers(trained=run, split=split, samples=split.samples)
    with row_file(Path(config.out) / FILE) as write:
        for rows in answers.rows():
            write([{"fold": config.data.split.fold, **row} for row in rows])


def print_folds(folder: Path, summaries: Sequence[Mapping[str, float]], folds: int) -> None:
    """Collect the predictions of all folds in one file in `folder`, and print a table with the metrics of each fold
    (the mean over the seeds), their mean and standard deviation, and their mean over all samples. `summaries` are those
    of all folds of the first seed, then of the second, and so on."""
    files = sorted(folder.rglob(f"fold-*/{FILE}"), key=lambda file: (file.parts[:-2], int(file.parent.name[5:])))
    with atomic_file(folder / FILE, "w") as lines:
        for file in files:
            lines.write(file.read_text())
    rows = [list(map(json.loads, file.read_text().splitlines())) for file in files[:folds]]
    counts = [sum("error" not in row for row in rows_of_fold) for rows_of_fold in rows]
    measured = set.intersection(*(set(summary) for summary in summaries))  # a fold may lack some
    names = [name for name in summaries[0] if name in measured - {"step", "seconds", "best_step"}]
    table = Table("fold", "samples", *names, title=f"{folds} folds", title_justify="left")
    values = {name: [statistics.mean(run[name] for run in summaries[fold::folds]) for fold in range(folds)]
              for name in names}  # fmt: skip
    for fold, count in enumerate(counts):
        table.add_row(str(fold), f"{count:,}", *(figure_text(values[name][fold]) for name in names))
    mean = [f"{figure_text(statistics.mean(row))} ± {statistics.stdev(row):.4f}" for row in values.values()]
    pooled = [sum(v * n for v, n in zip(row, counts, strict=True)) / sum(counts) for row in values.values()]
    table.add_section()
    table.add_row("mean", "", *mean)
    table.add_row("all samples", f"{sum(counts):,}", *map(figure_text, pooled))
    plain_console(width=None if plain_console().is_terminal else 240).print(table)
    print(f"predictions: {folder / FILE}")
