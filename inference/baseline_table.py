"""The comparison of a run with simple models: a table with one row per model, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rich.table import Table

from ..data.split import Split
from ..files.printing import figure_text, one_line
from ..files.reading import DataError
from ..files.records import Record
from ..tasks.base import Task
from .baselines import LIMIT, Fitted, TaskBaselines, check_possible, fit_baselines
from .evaluation import measured
from .evaluator import Say, TrainedRun
from .intervals import RunSums, Units, difference_intervals, on_all, units_of
from .sample_sums import FORMAT, About, TaskSums


class BaselineRow(Record):
    """A simple model in a table."""

    title: str
    seconds: float
    value: float | None = None
    """Its metric; None: it was stopped or failed."""
    better: float | None = None
    """By how much the run is better."""
    interval: tuple[float, float] | None = None
    """The interval of 95 % of `better`."""
    problem: str = ""


class Comparison(Record):
    """A run compared with simple models in one metric of one task, on one split."""

    task: str
    split: str
    metric: str
    unit: str
    samples: int
    value: float
    """The metric of the run."""
    seconds: float | None = None
    """The duration of its training; None: unknown."""
    rows: list[BaselineRow]
    best: str
    """The title of the best simple model on the validation split; of a cross-validation, on all its samples."""
    sentence: str
    remarks: list[str] = []

    @property
    def header(self) -> list[str]:
        return ["model", "seconds", self.metric, "the run is better by", "95 %"]

    def cells(self) -> list[list[str]]:
        """Returns the rows of the table as texts, the run first."""
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        rows = [["this run", seconds, figure_text(self.value), "", ""]]
        for row in self.rows:
            if row.value is None:
                rows.append([row.title, f"{row.seconds:.1f}", row.problem, "", ""])
                continue
            decimals = decimals_of(row)
            ends = " to ".join(f"{end:+.{decimals}f}" for end in row.interval or ())
            rows.append([row.title, f"{row.seconds:.1f}", figure_text(row.value), f"{row.better:+.{decimals}f}", ends])
        return rows

    def table(self) -> Table:
        """Returns the table for a terminal."""
        table = Table(title=one_line(f"{self.task}: {self.metric} on {self.samples:,} samples of {self.split}"))
        for number, name in enumerate(self.header):
            table.add_column(one_line(name), justify="right" if number else "left")
        for cells in self.cells():
            table.add_row(*map(one_line, cells))
        return table


class Comparisons(Record):
    """The content of `RUN/report/baselines.json`."""

    comparisons: list[Comparison]


def compared(
    trained: TrainedRun, split: str = "val", *, names: Sequence[str] | None = None, metric: str | None = None,
    limit: float = LIMIT, say: Say = lambda text: None,
) -> list[Comparison]:  # fmt: skip
    """Compares a run with simple models on a split: for the tasks `names` (None: all tasks that have simple models), in
    the metric `metric` (None: `Task.headline`). The best simple model is chosen on the validation split. Raises
    DataError if a task has no simple models, or if none has."""
    chosen = compared_tasks(trained, names, metric)
    data = trained.open(split, say=lambda text: None)
    with trained.arithmetic():
        result = measured(trained, data, names=chosen, generated=0, detail="samples")
    comparisons = []
    for name in chosen:
        if name not in result.by_sample:
            raise DataError(
                f"tasks.{name}: no sample of {split} has a target, or the loss of a sample depends on other samples"
            )
        fitted = fit_baselines(trained, name, dict.fromkeys(("val", split)), limit, say)
        parts = numbered(trained, name, data, result.by_sample[name], fitted)
        result_of_task = comparison(split, *parts, metric)
        comparisons.append(result_of_task.model_copy(update={"seconds": trained.training_seconds}))
    return comparisons


def compared_tasks(trained: TrainedRun, names: Sequence[str] | None, metric: str | None) -> list[str]:
    """Returns the names of the tasks that `compared` compares. Raises DataError for an unknown task, if a task has no
    simple models, or if it lacks the metric."""
    tasks = trained.tasks
    if unknown := [name for name in names or () if name not in tasks]:
        raise DataError(f"there is no task {unknown[0]!r}; possible: {', '.join(tasks)}")
    chosen = [*names] if names is not None else [name for name, task in tasks.items() if task.baselines]
    for name in chosen or tasks:
        check_possible(name, tasks[name])
        possible = comparable(tasks[name])
        if metric is not None and metric not in possible:
            raise DataError(
                f"tasks.{name}: simple models cannot be compared by {metric!r}; possible: {', '.join(possible)}"
            )
    return chosen


def comparable(task: Task) -> list[str]:
    """Returns the metrics that are computed from sums by sample, and of which larger or smaller values are better."""
    return [name for name, metric in task.metrics.items() if metric.of_sums and metric.larger_is_better is not None]


def numbered(
    trained: TrainedRun, name: str, data: Split, sums: TaskSums, fitted: TaskBaselines
) -> tuple[RunSums, TaskBaselines, Units]:
    """Returns the sums of a run and those of simple models on the same split, with the units of its samples. Samples
    are numbered from 0; the numbers of the windows of a corpus are the indices of their first ids."""
    kind, of, labels = units_of(data, trained.group)
    about = About(format=FORMAT, split=data.name, step=trained.step, weights="", tasks=(name,), kind=kind, of=of)
    positions = {number: place for place, number in enumerate(sorted(index.number for index in data.all()))}
    parts = []
    for each in fitted.fitted:
        of_split = {key: part.select(positions) for key, part in each.sums.items() if key == data.name}
        parts.append(replace(each, sums={**each.sums, **of_split}))
    own = RunSums({name: trained.tasks[name]}, {name: sums.select(positions)})
    return own, replace(fitted, fitted=parts), Units(labels, len(positions), about)


def comparison(
    split: str, own: RunSums, fitted: TaskBaselines, units: Units, metric: str | None = None
) -> Comparison:  # fmt: skip
    """Returns the comparison of the sums of one task of a run with those of simple models on the same samples."""
    ((name, task),) = own.tasks.items()
    key = metric or task.headline
    kind, value = task.metrics[key], score(task, own.sums[name], key)
    if value is None:
        raise DataError(f"tasks.{name}: {key} of the run is not a finite number, or cannot be computed for all samples")
    sign = 1.0 if kind.larger_is_better else -1.0
    rows = [row_of(split, own, each, units, key, sign, value) for each in fitted.fitted]
    scores = {each.title: score(task, each.sums.get("val", each.sums.get(split)), key) for each in fitted.fitted}
    known = {title: sign * score for title, score in scores.items() if score is not None}
    best = max(known, key=known.__getitem__) if known else ""
    return Comparison(
        task=name, split=split, metric=key, unit=kind.unit, samples=len(own.sums[name].numbers), value=value,
        rows=rows, best=best, sentence=sentence(rows, best, units), remarks=[*fitted.remarks],
    )  # fmt: skip


def score(task: Task, sums: TaskSums | None, key: str) -> float | None:
    """Returns a metric from sums by sample; None if it cannot be computed or is not finite."""
    value = None if sums is None else on_all(task.metrics, sums).get(key)
    return value if value is not None and math.isfinite(value) else None


def row_of(
    split: str, own: RunSums, fitted: Fitted, units: Units, key: str, sign: float, value: float
) -> BaselineRow:  # fmt: skip
    """Returns the row of a simple model."""
    ((name, task),) = own.tasks.items()
    sums = fitted.sums.get(split)
    other = score(task, sums, key)
    if other is None:
        return BaselineRow(title=fitted.title, seconds=fitted.seconds, problem=fitted.problem or "not measured")
    intervals = difference_intervals(split, [RunSums(own.tasks, {name: sums})], [own], units)
    interval = intervals.get(f"{split}/{key}")
    ends = None if interval is None else tuple(sorted(sign * end for end in interval))
    return BaselineRow(
        title=fitted.title, seconds=fitted.seconds, value=other, better=sign * (value - other), interval=ends
    )  # fmt: skip


def sentence(rows: Sequence[BaselineRow], best: str, units: Units) -> str:
    """Returns what the table says about the best simple model."""
    row = next((row for row in rows if row.title == best and row.better is not None), None)
    if row is None:
        return "No simple model could be fitted."
    title, decimals = row.title[:1].upper() + row.title[1:], decimals_of(row)
    size = f"{abs(row.better):.{decimals}f}"
    if row.interval is None:
        side = "better" if row.better > 0 else "worse"
        reason = units.problem or "the metric has no interval"
        return f"The run is {side} than the best simple model ({row.title}) by {size}; {reason}."
    low, high = row.interval
    if low > 0:
        ends = f"{low:.{decimals}f} to {high:.{decimals}f}"
        return f"The run is better than the best simple model ({row.title}) by {size} ({ends})."
    if high < 0:
        return f"{title} is better than this run by {size} ({-high:.{decimals}f} to {-low:.{decimals}f})."
    ends = f"{low:+.{decimals}f} to {high:+.{decimals}f}"
    return f"{title} is as good as this run (difference {row.better:+.{decimals}f}, {ends})."


def decimals_of(row: BaselineRow) -> int:
    """Returns the number of decimals with which the difference of a row and its interval have at least two digits, at
    least 4."""
    largest = max(abs(number) for number in (row.better, *(row.interval or ())))
    return min(max(4, 1 - math.floor(math.log10(largest))), 12) if largest else 4
