"""The figures of a run: those of the checkpoint that `predict` and `evaluate` load, and how they are written in
tables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.reading import DataError
from ..files.records import read_record
from ..training import checkpoints as checkpoint
from ..training.log import read_metrics
from .run_folder import Summary


@dataclass(frozen=True)
class Figures:
    """The metrics of a run."""

    step: int
    """The step of the checkpoint that `predict` and `evaluate` load."""
    metrics: Mapping[str, float]
    """Its metrics, without those of the training split."""
    last: Mapping[str, float]
    """The metrics of the last step."""


def figures_of(folder: Path) -> Figures:
    """Returns the figures of a run, finished or not. Metrics that were not measured at the step of the best checkpoint
    are left out, except those of the evaluators at the end of the training, since this checkpoint is loaded for them.
    Without a best checkpoint, the last value of each metric counts. Raises DataError if a file is damaged."""
    lines: dict[int, dict[str, float]] = {}
    for line in read_metrics(folder / "metrics.jsonl"):
        metrics = {name: value for name, value in line.items() if is_metric(name)}
        lines.setdefault(int(line["step"]), {}).update(metrics)
    measured = [step for step, metrics in lines.items() if metrics]
    last = max(measured, default=0)
    best = checkpoint.read_step(folder, "best")
    step = last if best is None else best
    latest = {name: value for each in sorted(lines) for name, value in lines[each].items()}
    metrics = latest if best is None else dict(lines.get(step, {}))
    summary = summary_in(folder)
    if summary.get("step") == last and isinstance(summary.get("last"), dict):  # else an older version has written it
        metrics = {name: value for name, value in summary.items() if is_metric(name) and name != "last"}
    return Figures(step, metrics, lines.get(last, {}))


def choice(best: str | None, on_val: bool, inner: float | None = None) -> str:
    """Returns a sentence: by which metric and on which samples a checkpoint was chosen. `best` is `checkpoints.best`;
    `on_val`: the figures are those of the validation split; `inner`: see `data.split.inner`."""
    if not best:
        return "The figures are those of the last checkpoint; none was chosen."
    if on_val:
        return f"The checkpoint was chosen by {best} on these samples."
    where = "val" if inner is None else f"a share of {inner:g} of the other folds"
    return f"The checkpoint was chosen by {best} on {where}."


def is_metric(name: str) -> bool:
    """Returns whether a name in a line of `metrics.jsonl` or in a summary is that of an evaluation metric."""
    return name not in ("step", "seconds", "best_step") and not name.startswith(("train/", "data/"))


def summary_in(folder: Path) -> dict[str, Any]:
    """Returns the content of `summary.json`; empty if there is no such file, or if it is damaged."""
    try:
        return read_record(folder / "summary.json", Summary).root if os.path.isfile(folder / "summary.json") else {}
    except DataError:
        return {}
