"""Prediction, from samples to answers: a class with its probabilities, numbers, a text, as each task answers; and the
vectors that a head makes answers of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit
from ..models.arithmetic import finite
from ..models.batch import Batch
from ..models.model import Model, at
from ..tasks.base import Task, asking
from .generate import Generating, before, write


def predict(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, how: Generating = Generating(), rows: int = 64
) -> list[dict[str, Any]]:
    """Every task's answer to each sample of a split, by task, in the order of the samples: `[{"digit": {...}}, ...]`;
    `{"error": why}` for a sample that cannot be read. Texts and other items are generated as `how` says: of a text
    {"text": ...}, of any other item {"ids": [...]}. `rows` samples are read at a time."""
    tasks = {name: asking(task) for name, task in tasks.items()}
    found: list[dict[str, Any]] = [{} for _ in range(len(split))]
    every, generator = split.all(), how.generator(model)
    for first in range(0, len(every), rows):
        places = every[first : first + rows]
        for name, task in tasks.items():
            if task.needs.generates:
                written = write(model, name, task, split, places, how, generator=generator)
                answers = {number: answer_of(task, ids, how) for number, ids in written.items()}
            else:
                answers = read_off(model, name, task, split, places)
            for number, answer in answers.items():
                found[number][name] = answer
    return [answer or {"error": split.skipped.bad[number]} for number, answer in enumerate(found)]


def answer_of(task: Task, ids: list[int], how: Generating) -> dict[str, Any]:
    """The answer of generated ids: {"text": ...} or {"ids": [...]}."""
    if task.choppers[task.target].kind == "text":
        return {"text": before(task.restore(ids), how.stop)}
    return {"ids": ids}


@torch.inference_mode()
def read_off(
    model: Model, name: str, task: Task, split: SampleSplit, places: Sequence[SampleIndex]
) -> dict[int, dict[str, Any]]:
    """One task's answers by the samples' numbers, from one forward pass; bad samples are left out."""
    batch = replace(split, tasks={name: task}).batch(places)
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return {}
    output = finite(model(planned(model, batch))[name])
    return dict(zip(numbers, task.answers(output, batch.targets[name], batch)))


@torch.inference_mode()
def pooled_vectors(
    model: Model, name: str, task: Task, split: SampleSplit, rows: int = 64
) -> Float[Tensor, "n d"] | None:
    """For every sample of a split, in order, the vector that the head of a task reads, on the CPU, NaN for a bad
    sample; None if the head does not read one vector of each sample, or all are bad."""
    split, found = replace(split, tasks={name: asking(task)}), {}
    for first in range(0, len(split), rows):
        batch = split.batch([SampleIndex(0, 0, number) for number in range(len(split))][first : first + rows])
        if not (numbers := [split.reader.number(key) for key in batch.first.keys]):
            continue
        batch = planned(model, batch)
        targets = batch.targets[name]
        vectors = model.heads[name].pooled(at(model.read(batch).of(targets), targets), targets)
        if vectors is None:
            return None
        found |= zip(numbers, finite(vectors).float().cpu())
    if not found:
        return None
    missing = torch.full_like(next(iter(found.values())), torch.nan)
    return torch.stack([found.get(number, missing) for number in range(len(split))])


def planned(model: Model, batch: Batch) -> Batch:
    """The batch with a layout for every layer, on the model's device."""
    like = next(model.parameters())
    return model.plan(batch, dtype=like.dtype, device=like.device).to(like.device)
