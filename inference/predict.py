"""Predictions for the samples of a split, and the pooled vectors that the heads of the model read. Depending on the
task, a prediction is a class with probabilities, numbers, a text or ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.request import Request
from ..data.sampler import SampleIndex
from ..data.split import SampleSplit
from ..models.arithmetic import finite
from ..models.batch import Batch
from ..models.model import Model, at
from ..tasks.base import Task, answers_of, prediction_copy
from .generate import Generating, before, write


def predict(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, how: Generating = Generating(), rows: int = 64
) -> list[dict[str, Any]]:
    """Returns one dictionary per sample of a split, in the order of the samples. The dictionary contains the answer of
    each task by task name, `{"digit": {...}}`, or `{"error": reason}` for a sample that cannot be read. Items are
    generated with the settings `how`. The answer is `{"text": ...}` for a generated text and `{"ids": [...]}` for
    another generated item. `rows` is the number of samples per forward pass."""
    tasks = {name: prediction_copy(task) for name, task in tasks.items()}
    split, generator = replace(split, tasks=tasks), how.generator(model)
    predictions: list[dict[str, Any]] = [{} for _ in range(len(split))]
    all_indices = split.all()
    parts = [all_indices[first : first + rows] for first in range(0, len(all_indices), rows)]
    generating = {name: task for name, task in tasks.items() if task.needs.generates}
    for indices in parts:
        for name, task in generating.items():
            for number, ids in write(model, name, task, split, indices, how, generator=generator).items():
                predictions[number][name] = answer_of(task, ids, how)
    for name in (name for name in tasks if name not in generating):
        for (batch,) in split.answers(Request(indices=indices, tasks=[name]) for indices in parts):
            for number, answer in direct_answers(model, name, tasks[name], split, batch).items():
                predictions[number][name] = answer
    predictions = [{name: each[name] for name in tasks if name in each} for each in predictions]
    return [answer or {"error": split.skipped.bad[number]} for number, answer in enumerate(predictions)]


def answer_of(task: Task, ids: list[int], how: Generating) -> dict[str, Any]:
    """Returns the answer for generated ids: `{"text": ...}`, cut before the first stop text, if the target is a text,
    else `{"ids": [...]}`."""
    if task.choppers[task.target].kind == "text":
        return {"text": before(task.restore(ids), how.stop)}
    return {"ids": ids}


@torch.inference_mode()
def direct_answers(model: Model, name: str, task: Task, split: SampleSplit, batch: Batch) -> dict[int, dict[str, Any]]:
    """Returns the answers of one task to the samples of a batch by sample number, computed in one forward pass."""
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return {}
    output = finite(model(planned(model, batch))[name])
    return dict(zip(numbers, answers_of(name, task, output, batch.targets[name], batch)))


@torch.inference_mode()
def pooled_vectors(
    model: Model, name: str, task: Task, split: SampleSplit, rows: int = 64
) -> Float[Tensor, "n d"] | None:
    """Returns the pooled vector that the head of a task reads, for every sample of a split in order, with shape (n
    samples, width) on the CPU. The vector of a bad sample is NaN. Returns None if the head does not pool one vector per
    sample, or if all samples are bad."""
    split, pooled = replace(split, tasks={name: prediction_copy(task)}), {}
    for first in range(0, len(split), rows):
        batch = split.batch([SampleIndex(0, 0, number) for number in range(len(split))][first : first + rows])
        if not (numbers := [split.reader.number(key) for key in batch.first.keys]):
            continue
        batch = planned(model, batch)
        targets = batch.targets[name]
        vectors = model.heads[name].pooled(at(model.read(batch).of(targets), targets), targets)
        if vectors is None:
            return None
        pooled |= zip(numbers, finite(vectors).float().cpu())
    if not pooled:
        return None
    missing = torch.full_like(next(iter(pooled.values())), torch.nan)
    return torch.stack([pooled.get(number, missing) for number in range(len(split))])


def planned(model: Model, batch: Batch) -> Batch:
    """Returns the batch with the attention plan of every layer, on the device of the model."""
    parameter = next(model.parameters())
    return model.plan(batch, dtype=parameter.dtype, device=parameter.device).to(parameter.device)
