"""A run compared with simple models (`chopmix baselines`): they are fitted on the same training samples, and scored on
the same samples with the metrics of the run's task.

    samples --Task.baseline_features--> Examples --Baseline.predict, in a process of its own--> predictions
    predictions --Task.baseline_output--> outputs of the task's head --Task.measure--> sums by sample
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from ..data.sampler import SampleIndex
from ..data.split import Split, spread
from ..files.printing import listed
from ..files.reading import DataError
from ..models.batch import Targets
from ..tasks.base import Task
from ..tasks.baselines.simple_models import Examples
from .evaluator import Say, TrainedRun
from .limited import in_process
from .sample_sums import TaskSums, compact, sums_alone

LIMIT = 60.0
"""The number of seconds after which a baseline is stopped."""
MOST = 20_000
"""The largest number of training samples on which the baselines are fitted, spread evenly over the split."""
TOGETHER = 256
"""The number of samples that are read together."""


@dataclass(frozen=True)
class Fitted:
    """A baseline that was fitted on the training samples of a run."""

    title: str
    seconds: float
    """The time of fitting and predicting."""
    sums: Mapping[str, TaskSums]
    """The sums by sample of each split; empty if the baseline was stopped or failed."""
    problem: str = ""
    """Why there are no sums."""


@dataclass(frozen=True)
class TaskBaselines:
    """The baselines of one task of a run."""

    fitted: Sequence[Fitted]
    remarks: Sequence[str]
    """Sentences about ignored inputs and training samples."""


def fit_baselines(
    trained: TrainedRun, name: str, splits: Sequence[str], limit: float = LIMIT, say: Say = lambda text: None
) -> TaskBaselines:
    """Fits the baselines of a task on the training split, and scores them on `splits`. Raises DataError if the task has
    no baselines, or if no training sample has a target."""
    task = trained.tasks[name]
    check_possible(name, task)
    train, *others = (trained.open(split, say=lambda text: None) for split in ("train", *splits))
    samples = [[*read_samples(trained, name, train, spread(train.all(), MOST))]]
    if not samples[0]:
        raise DataError(f"tasks.{name}: no training sample has a target, so no simple model can be fitted")
    samples += [[*read_samples(trained, name, split, split.all())] for split in others]
    layout = layout_of([sample for part in samples for sample in part])
    train_examples, *scored = (examples_of(part, layout) for part in samples)
    blind = [replace(examples, targets=None) for examples in scored]
    fitted = []
    for baseline in task.baselines:
        say(f"simple models: {baseline.title}")
        received = scored if baseline.is_likelihood else blind
        outcome = in_process(partial(baseline.predict, train_examples, received), limit)
        if outcome.problem:
            fitted.append(Fitted(baseline.title, outcome.seconds, {}, outcome.problem))
        elif outcome.value is not None:  # else the model is not for such data
            by_split = zip(splits, samples[1:], outcome.value, strict=True)
            sums = {split: sums_of(task, part, predictions) for split, part, predictions in by_split}
            fitted.append(Fitted(baseline.title, outcome.seconds, sums))
    return TaskBaselines(fitted, [*remarks_on(trained, layout, len(samples[0]), len(train.all()))])


def check_possible(name: str, task: Task) -> None:
    """Raises DataError if a task has no baselines."""
    if not task.baselines:
        raise DataError(
            f"tasks.{name}: no simple model predicts the target of {type(task).__name__}; possible: classes, numbers, "
            "forecasts, and texts without other inputs. Sequences are not supported"
        )


class Sample(NamedTuple):
    """A sample with a target."""

    number: int
    """Its number in the split."""
    features: Mapping[str, np.ndarray | str]
    """What simple models read, by input."""
    target: Any
    """See `Task.baseline_target`."""
    targets: Targets
    units: Mapping[str, float]


def read_samples(
    trained: TrainedRun, name: str, split: Split, indices: Sequence[SampleIndex]
) -> Iterator[Sample]:  # fmt: skip
    """Yields the samples that have a target of the task. Bad samples are left out."""
    task = trained.tasks[name]
    tasks = {key: each for key, each in trained.tasks.items() if key == name or each.needs.makes}
    for first in range(0, len(indices), TOGETHER):
        part = indices[first : first + TOGETHER]
        batches = split.batches(part, tasks, apart=True)
        for alone in next(batch.apart for batch in batches if name in batch.targets):
            if (targets := alone.targets[name]).count:
                features = task.baseline_features(split.item(alone.number)[0])
                yield Sample(alone.number, features, task.baseline_target(targets), targets, alone.units)


Layout = Mapping[str, tuple[int, ...] | None]
"""By input, the shape of the array that simple models read; None: a text."""


def layout_of(samples: Sequence[Sample]) -> Layout:
    """Returns what simple models read of the samples. Raises DataError if an input has arrays of several shapes."""
    layout: dict[str, tuple[int, ...] | None] = {}
    for sample in samples:
        for name, feature in sample.features.items():
            shape = None if isinstance(feature, str) else feature.shape
            if layout.setdefault(name, shape) != shape:
                raise DataError(f"inputs.{name}: simple_features returned the shapes {layout[name]} and {shape}")
    return layout


def examples_of(samples: Sequence[Sample], layout: Layout) -> Examples:
    """Returns samples as the input of simple models. What a sample lacks is NaN, or an empty text."""
    shapes = {name: shape for name, shape in layout.items() if shape is not None}
    numbers = np.full((len(samples), sum(map(math.prod, shapes.values()))), np.nan, dtype=np.float32)
    first = 0
    for name, shape in shapes.items():
        last = first + math.prod(shape)
        for row, sample in zip(numbers, samples):
            if name in sample.features:
                row[first:last] = sample.features[name].ravel()
        first = last
    texts = [[str(sample.features.get(name, "")) for sample in samples] for name in layout if layout[name] is None]
    targets = [sample.target for sample in samples]
    is_array = bool(targets) and isinstance(targets[0], np.ndarray)
    return Examples(numbers, [*shapes.values()], texts, np.stack(targets) if is_array else targets)


def remarks_on(trained: TrainedRun, layout: Layout, number: int, samples: int) -> Iterator[str]:
    """Yields sentences about inputs that simple models do not read, and about unused training samples."""
    if layout and (ignored := [name for name in trained.choppers if name not in layout]):
        yield f"Simple models do not read {listed(ignored, 5)}."
    if samples > MOST:
        yield f"They were fitted on {number:,} of {samples:,} training samples."


def sums_of(task: Task, samples: Sequence[Sample], predictions: Sequence[Any]) -> TaskSums:
    """Returns the sums by sample of predictions. Raises DataError if their number is wrong."""
    if len(predictions) != len(samples):
        raise DataError(f"a simple model returned {len(predictions)} predictions for {len(samples)} samples")
    rows = [
        sums_alone(task, task.baseline_output(prediction, sample.targets), sample.targets, sample.units)
        for sample, prediction in zip(samples, predictions)
    ]
    order = np.argsort([sample.number for sample in samples], kind="stable")
    sums = {key: torch.stack([row[key].double() for row in rows]).numpy()[order] for key in rows[0]} if rows else {}
    numbers = np.array([sample.number for sample in samples], dtype=np.int64)[order]
    return TaskSums(numbers, {key: compact(values) for key, values in sums.items()})
