"""Cross-validation (`--folds 5`): the settings of a fold, its predictions, and the table of all folds."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rich.table import Table

from ..data.samples import Columns
from ..files.printing import figure_text, plain_console
from ..files.trust import Trust
from ..files.writing import atomic_file
from ..inference.predict import predict
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
    folder of the run, one sample per line: {"fold": 0, "key": "a.png", "targets": {"label": "cat"}, "kind": {"class":
    "cat", ...}}, with the values of the columns that tasks predict, and the answer of each task by its name, or
    "error" for a sample that cannot be read."""
    run = load_run(config.out, trust=trust.modules, remote=trust.hosts)
    split, file = run.open("val"), Path(config.out) / "predictions.jsonl"
    columns = dict.fromkeys(column for task in run.tasks.values() for column in task.needs.columns)
    with run.arithmetic():
        answers = predict(run.model, run.tasks, split)
    with atomic_file(file, "w") as lines:
        for number, (key, answer) in enumerate(zip(split.samples.keys, answers, strict=True)):
            true: Columns = {}
            with suppress(ValueError, OSError):  # a sample that cannot be read; its answer says so
                true = split.samples.row(number, columns) if columns else {}
            targets = {name: true.get(name) for name in columns}
            row = {"fold": config.data.split.fold, "key": key, "targets": targets, **answer}
            lines.write(json.dumps(row) + "\n")


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
