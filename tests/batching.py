"""Batches of a split for tasks that it was not opened with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chopmix.data.sampler import Place
from chopmix.data.split import Split
from chopmix.models.batch import Batch
from chopmix.tasks.base import Task


def make_batch(split: Split, places: Sequence[Place], tasks: Mapping[str, Task], **how) -> Batch:
    """What `split.batch` gives where the split has these tasks."""
    return replace(split, tasks=tasks).batch(places, **how)
