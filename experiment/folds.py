"""Cross-validation (`--folds 5`): the settings of a fold, the evaluation of its run on the samples of the fold, and the
table of all folds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..files.errors import RunError
from ..files.rows import row_file
from ..files.trust import Trust
from ..files.writing import atomic_file
from ..inference.answers import Answers
from .answers import losses_by_number
from .figure_table import Estimate, FigureTable, Row, mean
from .groups import Group
from .run import load_run
from .run_sums import stored_sums, sums_of
from .settings.config import Config

FILE = "predictions.jsonl"
"""The file with the predictions for the samples of a fold, in the folder of its run, and of all folds, in the folder
that contains these runs."""


def division_of(options: argparse.Namespace) -> list[str]:
    """Returns the overrides for `--folds`, `--inner`, `--group` and `--stratify`. Without an inner division no
    checkpoint is chosen: the samples of the fold would choose it. Raises RunError if a column is named without
    `--folds`."""
    names = ("group", "stratify", "inner")
    given = [(name, value) for name in names if (value := getattr(options, name)) is not None]
    if given and not options.folds:
        name = given[0][0]
        hint = "" if name == "inner" else f"; without folds write data.split.{name}=COLUMN"
        raise RunError(f"--{name} needs --folds{hint}")
    overrides = [
        f"data.split.{name}={value}" for name, value in [("folds", options.folds), *given] if value is not None
    ]
    return [*overrides, *(["checkpoints.best=null"] if options.folds and options.inner is None else [])]


def check_stop(config: Config) -> None:
    """Raises RunError if the samples of a fold would end its training."""
    if config.training.stop and not config.data.split.inner:
        raise RunError(
            "training.stop: the samples of the fold would choose the length of the training; add --inner 0.1, which "
            "chooses it on a tenth of the other folds, or remove training.stop"
        )


def held_out(config: Config) -> str:
    """Returns the split that has the samples of the fold: `test` with an inner division, else `val`."""
    return "test" if config.data.split.inner else "val"


def evaluate_fold(config: Config, trust: Trust) -> None:
    """Evaluate the run of a fold on the samples of the fold, and write into its folder the sums by sample and
    `predictions.jsonl`, one sample per line: {"seed": 0, "fold": 0, "key": "a.png", "group": "p1", "kind": {"class":
    "cat", ...}, "loss": {"kind": 0.1}, "targets": {"label": "cat"}}, or with "error" for a sample that cannot be read
    (see `inference/answers.py`). Does nothing if this was done for the same checkpoint."""
    run, folder = load_run(config.out, trust=trust.modules, remote=trust.hosts), Path(config.out)
    split = held_out(config)
    if stored_sums(folder, split, run.step) and (folder / FILE).exists():
        return
    data = run.open(split)
    result = run.measured(data, detail="samples")
    answers = Answers(
        trained=run, split=data, samples=data.samples, group=config.data.split.group, losses=losses_by_number(result),
        before={"seed": run.seed, "fold": config.data.split.fold},
    )  # fmt: skip
    with row_file(folder / FILE) as write:
        for rows in answers.rows():
            write(rows)
    sums_of(run, data, result).write(folder / "report", within=folder)


def join_predictions(folder: Path, runs: Sequence[Config]) -> Path:
    """Writes the predictions of the runs of all folds into one file in `folder`, and returns its path."""
    with atomic_file(folder / FILE, "w") as lines:
        for config in runs:
            lines.write((Path(config.out) / FILE).read_text())
    return folder / FILE


def fold_table(group: Group, title: str = "") -> FigureTable:
    """Returns the table of a cross-validation: for each fold the metrics (the mean over the seeds), their mean and
    standard deviation over the folds, and the metrics of all samples."""
    members = list(group.members.values())
    folds, sums = list(members[0].folds), members[0].sums.sums
    rows: list[Row] = []
    for task in sums:
        counts = [Estimate([members[0].folds[fold].samples.get(task, 0)]) for fold in folds]
        name = f"{task}: samples" if len(members[0].sums.tasks) > 1 else "samples"
        rows.append((name, [*counts, None, Estimate([len(sums[task].numbers)])]))
    for name in group.metrics:
        of_seeds = [[member.folds[fold].metrics.get(name) for member in members] for fold in folds]
        values = [None if None in row else mean(row) for row in of_seeds]
        known = [value for value in values if value is not None]
        cells = [None if value is None else Estimate([value]) for value in values]
        whole = Estimate([*group.values(name).values()], group.intervals.values.get(name))
        rows.append((name, [*cells, Estimate(known, has_seeds=False) if known else None, whole]))
    captions = [
        "All samples: from the added sums of all folds; metrics that cannot be computed from sums are left out.",
        group.intervals.caption(),
        group.choice,
    ]
    return FigureTable([*folds, "mean of folds", "all samples"], rows, [line for line in captions if line], title)
