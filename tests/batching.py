"""Helpers for tests of tasks: batches, targets, fitting and metrics of a single task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from chopmix.data.sampler import SampleIndex
from chopmix.data.samples import Listed
from chopmix.data.split import Split
from chopmix.experiment.build import TrainingData
from chopmix.models.batch import Batch, SetPlan, Targets
from chopmix.tasks.base import Task, figures
from torch import Tensor


def make_batch(split: Split, places: Sequence[SampleIndex], tasks: Mapping[str, Task], **how) -> Batch:
    """The batch of a split with these tasks instead of its tasks."""
    return replace(split, tasks=tasks).batch(places, **how)


def asked(task: Task, planned: SetPlan) -> Targets:
    """The targets of a task in one set."""
    return task.targets(Batch(main=planned))[1]


def fitted(task: Task, rows: Sequence[Mapping], say: Callable[[str], None] = print) -> Task:
    """The task after `fit` on these rows of training data."""
    task.learned = task.fit(TrainingData(Listed([str(number) for number in range(len(rows))], rows), say))
    return task


def summed(task: Task, output: Tensor, targets: Targets, **sums: float) -> dict[str, float]:
    """The metrics of a task in one batch, from `sums` and the sums that the task measures."""
    totals = {name: torch.tensor(value) for name, value in sums.items()} | task.measure(output, targets)
    return figures(task.metrics, totals)
