"""Intervals of 95 % for the metrics of a split: how much a metric would vary if other samples were drawn.

Samples are drawn again with replacement (bootstrap: Efron 1979); a metric is computed from the sums of the drawn
samples (`Metric.of_sums`), or from their texts. Samples that belong together, such as all recordings of a speaker or
overlapping windows of a table, are one *unit* and are drawn together. Exceptions:

- A share of right samples: Wilson's formula (1927), if each sample is a unit.
- A metric of all outputs (`Metric.of_outputs`), such as the recall of a retrieval: half of the units are drawn without
  replacement (Shao & Wu 1989), since a sample that is drawn twice would be a second right answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse, special
from torch import Tensor

from ..data.division import values_of
from ..data.split import Split
from ..files.printing import listed
from ..tasks.base import Metric, Task
from .sample_sums import About, TaskSums, Unit, as_tensors

RESAMPLES, FEW_RESAMPLES = 2000, 200
"""The number of resamples for metrics of sums, and for metrics of texts or of all outputs."""
TEXTS = 500
"""The largest number of texts in a resample."""
LEAST_UNITS = 10
"""With fewer groups or blocks, no interval is computed."""
SEED = 0
LEVEL = 0.95
CLOSE = 1e-3
"""The largest relative difference between a metric and its value from the sums by sample."""
NAMED = 4
"""The largest number of metrics without an interval that a caption names."""


class Interval(NamedTuple):
    """The lower and the upper end of an interval of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The intervals of the metrics of a split, and how they were computed."""

    values: Mapping[str, Interval]
    """The intervals by the names of the metrics."""
    methods: Sequence[str]
    """Descriptions of the methods, for a caption."""
    missing: Mapping[str, str]
    """The reason for each metric that has no interval."""

    def caption(self) -> str:
        """Returns a caption: how the intervals were computed, and which metrics have none."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.missing.items():
            reasons.setdefault(reason, []).append(name)
        if not self.values:
            return " ".join(f"No intervals: {reason}." for reason in reasons)
        lines = [f"95 % intervals: {'; '.join(self.methods)}."]
        for reason, names in reasons.items():
            lines.append(f"No interval for {listed(names, NAMED)}: {reason}.")
        return " ".join(lines)


@dataclass(frozen=True)
class Units:
    """The units of some samples, which are numbered from 0."""

    labels: Sequence[Unit] | None
    """The label of the unit of each sample; None: each sample is a unit."""
    samples: int
    about: About

    @cached_property
    def of_sample(self) -> np.ndarray:
        """The number of the unit of each sample (n)."""
        if self.labels is None:
            return np.arange(self.samples)
        numbers: dict[Unit, int] = {}
        return np.array([numbers.setdefault(label, len(numbers)) for label in self.labels], dtype=np.int64)

    @cached_property
    def count(self) -> int:
        return int(self.of_sample.max(initial=-1)) + 1

    @property
    def are_samples(self) -> bool:
        """Whether each sample is a unit."""
        return self.labels is None

    @property
    def text(self) -> str:
        """Returns what is drawn: `420 samples`, `12 groups (column 'patient')`, `31 blocks of 96 h`."""
        of = {"groups": f" (column {self.about.of!r})", "blocks": f" of {self.about.of}"}.get(self.about.kind, "")
        return f"{self.count:,} {self.about.kind if self.count != 1 else self.about.kind[:-1]}{of}"

    @property
    def problem(self) -> str | None:
        """Why there are no intervals; None if there are."""
        if self.labels is not None and all(label is None for label in self.labels):
            return f"no sample has a value in column {self.about.of!r}, by whose values samples are drawn"
        least = LEAST_UNITS if self.about.kind in ("groups", "blocks") else 2
        return f"there {'is' if self.count == 1 else 'are'} only {self.text}" if self.count < least else None

    def draws(self, count: int, size: int) -> Iterator[np.ndarray]:
        """Yields `count` resamples of `size` units with replacement: how often each unit is drawn (u)."""
        random = np.random.default_rng(SEED)
        for _ in range(count):
            yield np.bincount(random.integers(self.count, size=size), minlength=self.count)


def units_of(data: Split, group: str | None) -> tuple[str, str, Sequence[Unit] | None]:
    """Returns (kind, of, labels) of the units of a split that are drawn together; see `About.kind` and `About.of`. The
    labels, one per sample, are None if each sample is a unit. `group`: the column of `data.split.group`."""
    if not data.answerable:
        return "windows", "", None
    if group:
        return "groups", group, values_of(data.samples, group, np.arange(len(data.samples)))
    if blocks := data.samples.blocks:
        return "blocks", blocks.length, blocks.of_sample.tolist()
    return "samples", "", None


CHUNK = 100
"""The number of resamples whose sums are computed together."""


def resampled_sums(sums: TaskSums, units: Units) -> Iterator[dict[str, Tensor]]:
    """Yields the sums of each of RESAMPLES resamples."""
    of_units = {name: by_unit(rows, sums.numbers, units) for name, rows in sums.sums.items()}
    draws = units.draws(RESAMPLES, units.count)
    for _ in range(RESAMPLES // CHUNK):
        counts = np.stack([next(draws) for _ in range(CHUNK)]).astype(np.float64)
        values = {name: (rows.T @ counts.T).T for name, rows in of_units.items()}
        for number in range(CHUNK):
            yield as_tensors({name: rows[number] for name, rows in values.items()}, sums.sums)


def by_unit(rows: Any, numbers: np.ndarray, units: Units) -> Any:
    """Adds the sums by sample, (n, ...), of each unit. Returns the sums by unit, (u, k). `numbers` are the numbers of
    the samples."""
    rows = rows if sparse.issparse(rows) else rows.reshape(len(rows), -1)
    owner = units.of_sample[numbers]
    adding = sparse.csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))), shape=(units.count, len(owner)))
    return adding @ rows


def resampled_metrics(metrics: Mapping[str, Metric], sums: TaskSums, units: Units) -> dict[str, np.ndarray]:
    """Returns the values of the metrics of a task on all resamples, by name. Metrics that are computed neither from
    sums nor from texts are left out."""
    of_sums = {name: metric.of_sums for name, metric in metrics.items() if metric.of_sums}
    values: dict[str, list[float]] = {name: [] for name in of_sums}
    for resample in resampled_sums(sums, units) if of_sums else ():
        for name, compute in of_sums.items():
            values[name].append(compute(resample))
    found = {name: np.array(row, dtype=np.float64) for name, row in values.items() if None not in row}
    of_texts = {name: metric.of_texts for name, metric in metrics.items() if metric.of_texts}
    return found | (resampled_texts(of_texts, sums, units) if of_texts and sums.texts else {})


def resampled_texts(
    metrics: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]], sums: TaskSums, units: Units
) -> dict[str, np.ndarray]:
    """Returns the values of metrics of texts on FEW_RESAMPLES resamples, by name. A resample has at most about TEXTS
    texts; the differences from the value of all texts are then multiplied by the square root of the share that is
    drawn."""
    texts: dict[int, list[tuple[str, str]]] = {}
    for number, *pair in sums.texts:
        texts.setdefault(int(units.of_sample[number]), []).append(tuple(pair))
    share = min(1.0, TEXTS / len(sums.texts))
    size = max(1, round(units.count * share))
    values: dict[str, list[float]] = {name: [] for name in metrics}
    everything = [pair for pairs in texts.values() for pair in pairs]
    for counts in units.draws(FEW_RESAMPLES, size):
        drawn = [pair for unit in np.flatnonzero(counts).tolist() for pair in texts.get(unit, []) * int(counts[unit])]
        for name, compute in metrics.items():
            values[name].append(compute(*map(list, zip(*drawn, strict=True))) if drawn else math.nan)
    wholes = {name: compute(*map(list, zip(*everything, strict=True))) for name, compute in metrics.items()}
    scale = math.sqrt(size / units.count)
    return {name: wholes[name] + (np.array(row) - wholes[name]) * scale for name, row in values.items()}


def resampled_outputs(metric: Metric, outputs: tuple[Tensor, Tensor, Tensor], units: Units) -> np.ndarray:
    """Returns a metric of all outputs on FEW_RESAMPLES halves of the units."""
    output, values, numbers = outputs
    owner = units.of_sample[numbers.numpy()]
    random = np.random.default_rng(SEED)
    found = []
    for _ in range(FEW_RESAMPLES):
        chosen = np.zeros(units.count, dtype=bool)
        chosen[random.permutation(units.count)[: units.count // 2]] = True
        rows = np.flatnonzero(chosen[owner])
        found.append(metric.of_outputs(output[rows], values[rows]) if len(rows) else math.nan)
    return np.array(found, dtype=np.float64)


@dataclass(frozen=True)
class RunSums:
    """The sums by sample of one run (or of all folds of a cross-validation), and the tasks that compute metrics from
    them."""

    tasks: Mapping[str, Task]
    sums: Mapping[str, TaskSums]
    """The sums by task. Their numbers are those of the samples in `Units`."""
    is_pooled: bool = False
    """Whether these are the sums of several folds, each with another model."""


def split_intervals(
    split: str, runs: Sequence[RunSums], metrics: Mapping[str, float], units: Units,
    outputs: Mapping[str, tuple[Tensor, Tensor, Tensor]] = {},
) -> Intervals:  # fmt: skip
    """Returns the intervals of the metrics of a split: of one run, or of the means over several runs with different
    seeds. `metrics` has the names of `Measured.metrics`; `outputs` are all outputs by task, of a single run."""
    if units.problem:
        return Intervals({}, (), dict.fromkeys(metrics, units.problem))
    drawn = mean_drawn([resampled_split(split, run, units) for run in runs])
    is_single = len(runs) == 1 and not runs[0].is_pooled and units.are_samples
    values, missing, methods = {}, {}, dict[str, dict[str, None]]()
    for name in (name for name, value in metrics.items() if not isinstance(value, int)):  # not the counts of items
        task, metric = named(split, runs[0].tasks, name)
        interval, how = None, bootstrap(units)
        if metric and metric.of_outputs and task in outputs:
            interval = percentiles(resampled_outputs(metric, outputs[task], units), metrics[name])
            how = f"{FEW_RESAMPLES} random halves of {units.text}"
        elif name in drawn.values and close(drawn.wholes[name], metrics[name]):
            if metric and metric.is_share and is_single:
                interval = wilson(metrics[name], counted(metric, runs[0].sums[task]))
                how = "Wilson's formula"
            else:
                interval = percentiles(drawn.values[name])
                few = f"{FEW_RESAMPLES} resamples of at most {TEXTS} texts"
                how = few if metric and metric.of_texts else how
        if interval is None:
            missing[name] = why_missing(metric)
        else:
            values[name] = interval
            methods.setdefault(how, {})[name.rpartition("/")[2]] = None
    general = [how for how in methods if how == bootstrap(units)]
    special = [f"{', '.join(names)}: {how}" for how, names in methods.items() if how not in general]
    return Intervals(values, general + special, missing)


def difference_intervals(
    split: str, first: Sequence[RunSums], other: Sequence[RunSums], units: Units
) -> dict[str, Interval]:
    """Returns the intervals of the differences `other` - `first` of all metrics, on the same samples. The same samples
    are drawn for all runs."""
    if units.problem:
        return {}
    one, two = (mean_drawn([resampled_split(split, run, units) for run in runs]) for runs in (first, other))
    intervals = {name: percentiles(two.values[name] - one.values[name]) for name in one.values if name in two.values}
    return {name: interval for name, interval in intervals.items() if interval is not None}


def counted(metric: Metric, sums: TaskSums) -> int:
    """Returns the number of samples on which a metric is measured."""
    return len(sums.texts) if metric.of_texts else len(sums.numbers)


def bootstrap(units: Units) -> str:
    """Returns a description of the bootstrap, for captions."""
    return f"bootstrap, {RESAMPLES:,} resamples of {units.text}"


def named(split: str, tasks: Mapping[str, Task], name: str) -> tuple[str, Metric | None]:
    """Returns the task and the metric that a complete name stands for; None for other names, such as that of the
    weighted sum of the losses of several tasks."""
    for task_name, task in tasks.items():
        prefix = f"{split}/{task_name}/" if len(tasks) > 1 else f"{split}/"
        if name.startswith(prefix) and (metric := task.metrics.get(name.removeprefix(prefix))):
            return task_name, metric
    return "", None


def why_missing(metric: Metric | None) -> str:
    """Returns why a metric has no interval."""
    if metric and metric.of_judge:
        return "a judge computes the metric"
    if metric and metric.of_chain:
        return "the metric is measured on some of the samples only"
    return "the metric is not computed from sums of the samples"


def close(one: float, other: float) -> bool:
    """Returns whether two values of a metric are equal up to rounding."""
    return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE)


class Drawn(NamedTuple):
    """The metrics of a split on resamples of its samples."""

    values: Mapping[str, np.ndarray]
    """The values on all resamples, by the name of the metric."""
    wholes: Mapping[str, float]
    """The values on all samples, by the name of the metric."""


def resampled_split(split: str, run: RunSums, units: Units) -> Drawn:
    """Returns the metrics of a split that can be computed from the sums by sample, on the whole split and on resamples
    of its units. Equal units are drawn in the same way, so differences of such metrics are paired."""
    tasks, sums = run.tasks, run.sums
    values: dict[str, np.ndarray] = {}
    wholes: dict[str, float] = {}
    for name, part in sums.items():
        prefix = f"{split}/{name}/" if len(tasks) > 1 else f"{split}/"
        found = on_all(tasks[name].metrics, part)
        metrics = {key: tasks[name].metrics[key] for key in found}
        wholes |= {prefix + key: value for key, value in found.items()}
        values |= {prefix + key: row for key, row in resampled_metrics(metrics, part, units).items()}
    losses = {name: f"{split}/{name}/loss" for name in sums}
    if len(tasks) > 1 and all(loss in values for loss in losses.values()):
        for each in (values, wholes):
            each[f"{split}/loss"] = sum(tasks[name].weight * each[loss] for name, loss in losses.items())
    return Drawn(values, wholes)


def mean_drawn(runs: Sequence[Drawn]) -> Drawn:
    """Returns the means over several runs of the metrics that all of them have."""
    names = [name for name in runs[0].values if all(name in run.values for run in runs)]
    return Drawn(
        {name: np.mean([run.values[name] for run in runs], axis=0) for name in names},
        {name: float(np.mean([run.wholes[name] for run in runs])) for name in names},
    )


def on_split(split: str, run: RunSums) -> dict[str, float]:
    """Returns the metrics of a split, by the names of `Measured.metrics`, that can be computed from the sums by
    sample."""
    several = len(run.tasks) > 1
    found = {
        f"{split}/{name}/{key}" if several else f"{split}/{key}": value
        for name, sums in run.sums.items()
        for key, value in on_all(run.tasks[name].metrics, sums).items()
    }
    losses = {name: found.get(f"{split}/{name}/loss") for name in run.sums}
    if several and None not in losses.values():
        found = {f"{split}/loss": sum(run.tasks[name].weight * loss for name, loss in losses.items())} | found
    return found


def on_all(metrics: Mapping[str, Metric], sums: TaskSums) -> dict[str, float]:
    """Returns the metrics, by name, that can be computed from the sums and texts of all samples."""
    total, found = sums.total() if len(sums.numbers) else {}, {}
    for name, metric in metrics.items():
        if metric.of_sums and total:
            with suppress(KeyError):  # a sum that is not counted by sample
                found[name] = metric.of_sums(total)
        elif metric.of_texts and sums.texts:
            found[name] = metric.of_texts(*map(list, zip(*(pair for _, *pair in sums.texts), strict=True)))
    return {name: float(value) for name, value in found.items() if value is not None}


def percentiles(values: np.ndarray, centre: float | None = None) -> Interval | None:
    """Returns the interval that contains 95 % of the values; None if there are none. With `centre`, the interval is
    moved so that the mean of the values is at the centre."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    shift = 0.0 if centre is None else centre - finite.mean()
    return Interval(float(low + shift), float(high + shift))


def wilson(share: float, count: float) -> Interval:
    """Returns Wilson's interval for a share of `count` samples."""
    z = float(special.ndtri(0.5 + LEVEL / 2))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def of_seeds(values: Sequence[float]) -> Interval | None:
    """Returns the t interval of the mean of several independent runs; None for fewer than two."""
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    half = float(special.stdtrit(len(values) - 1, 0.5 + LEVEL / 2)) * np.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(float(np.mean(values) - half), float(np.mean(values) + half))
