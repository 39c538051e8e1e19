"""What a model generates for the samples of a split, to be judged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.processes import Processes
from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..data.split import Split
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.judging import Generated
from .generating import Generating
from .items import generate_items, generate_unprompted
from .refining import chain_of

UNPROMPTED = 1000
"""The most items that are generated for the metrics of a corpus."""
CHAINS, ROWS = 64, 16
"""The most items whose cost from left to right is computed, and how many at a time: it takes as many forward passes as
the longest has tokens."""


def generated_share(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place],
    processes: Processes, inputs: Collection[str] | None, rows: int,
) -> list[Generated]:  # fmt: skip
    """This process's share of what the model generates from the other inputs (only those of `inputs`, where given) of
    the samples at these places, all of which have a true item, `rows` at a time, each beside that item; as the task
    says: by its search, or drawn with a seed that follows from the places. Of a corpus as many items as there are
    places, at most `UNPROMPTED`."""
    task = tasks[name]
    if split.samples is None:
        return unprompted_share(model, name, task, processes, rows, min(len(places), UNPROMPTED))
    found: list[Generated] = []
    how = Generating(sampling=task.sampling, guidance=task.guidance)
    for group in processes.share([places[first : first + rows] for first in range(0, len(places), rows)]):
        generator = torch.Generator().manual_seed(group[0].number)  # on the CPU: the same draws for any device
        made = generate_items(model, tasks, name, split, group, how, inputs, generator)
        for number, ids in made.items():
            given, labels = split.item(number)
            found.append(Generated(whole(task, ids), given[task.target], labels))
    return found


def unprompted_share(
    model: Model, name: str, task: Task, processes: Processes, rows: int, count: int
) -> list[Generated]:
    """This process's share of `count` items that the model generates from nothing, `rows` at a time."""
    found, how = [], Generating(sampling=task.sampling)
    for first in processes.share(list(range(0, count, rows))):
        generator = torch.Generator().manual_seed(first)
        every = generate_unprompted(model, name, task, min(rows, count - first), how, generator)
        found += [Generated(whole(task, ids), None, {}) for ids in every]
    return found


def chain_share(
    model: Model, name: str, task: Task, split: Split, places: Sequence[Place], processes: Processes,
    inputs: Collection[str] | None,
) -> dict[str, Tensor]:  # fmt: skip
    """This process's share of what the items at these places cost from left to right: their nats (`chain`),
    `chain_tokens`, `chain_units`, and how many items there are, `chain_samples`."""
    found = torch.zeros(4)
    for group in processes.share([places[first : first + ROWS] for first in range(0, len(places), ROWS)]):
        batch = split.read(group, inputs=inputs)
        if task.target in batch.main.chunks:
            nats, tokens = chain_of(model, name, task, batch)
            found = found + torch.tensor([nats, tokens, batch.units.get(task.target, 0.0), len(group)])
    return dict(zip(("chain", "chain_tokens", "chain_units", "chain_samples"), found))


def whole(task: Task, ids: Sequence[int]) -> Any:
    """The item of generated ids; None where they are none, as where a picture was cut short."""
    try:
        return task.restore(ids)
    except ValueError:
        return None
