"""A split's samples or windows as a batch with every task's targets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..models.batch import Batch
from ..tasks.base import Task
from .corpus import StreamSplit
from .sample_split import SampleSplit

Split = StreamSplit | SampleSplit
"""What training and evaluation read: `plan(seed, step, size)`, `all()`, and `batch(places)` as one planned set."""


def make_batch(
    split: Split, places: Sequence, tasks: Mapping[str, Task], *, training: bool = False,
    inputs: Collection[str] | None = None,
) -> Batch:  # fmt: skip
    """The samples or windows at these places as a batch with every task's targets; of the inputs only those named."""
    sets = split.batch(places, training=training, inputs=inputs)
    for task in tasks.values():
        sets = task.alter(sets)
    targets = {}
    for name, task in tasks.items():
        own = task.set_of(sets)
        targets[name] = replace(task.targets(sets[own]), set=own)
    return Batch(sets=sets, targets=targets)
