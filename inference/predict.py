"""Predictions for the samples of a split, and the pooled vectors that the heads of the model read. Depending on the
task, a prediction is a class with probabilities, numbers, a text or ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import repeat, tee
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
from .generate import Generating, Generation, before, write
from .trained import TrainedModel


def predict(
    trained: TrainedModel, split: SampleSplit, how: Generating = Generating(), rows: int = 64
) -> list[dict[str, Any]]:
    """Returns one dictionary per sample of a split, in the order of the samples; see `stream_predictions`."""
    order, predictions = split.all(), dict[int, dict[str, Any]]()
    parts = [order[first : first + rows] for first in range(0, len(order), rows)]
    for answers in stream_predictions(trained, split, parts, how):
        predictions |= answers
    return [predictions[number] for number in range(len(split))]


def stream_predictions(
    trained: TrainedModel, split: SampleSplit, parts: Iterable[Sequence[SampleIndex]],
    how: Generating = Generating(),
) -> Iterator[dict[int, dict[str, Any]]]:  # fmt: skip
    """Yields the predictions for each of `parts`, the samples of one forward pass, by sample number. A prediction
    contains the answer of each task by task name, `{"digit": {...}}`, and `"without": [...]` if the sample lacks inputs
    that the tasks read; or it is `{"error": reason}` for a sample that cannot be read. Items are generated with the
    settings `how`. The answer is `{"text": ...}` for a generated text and `{"ids": [...]}` for another generated item.
    Samples are read ahead (`SampleSplit.fetch_all`) and not kept."""
    tasks = {name: prediction_copy(task) for name, task in trained.tasks.items()}
    trained = TrainedModel(model=trained.model, tasks=tasks)
    split = replace(split, tasks=tasks)
    generating = {name: task for name, task in tasks.items() if task.needs.generates}
    direct = [name for name in tasks if name not in generating]
    expected = [name for name in split.choppers if any(name in read_by(tasks, split.choppers, task) for task in tasks)]
    parts, requested = tee(parts)

    def without(number: int) -> dict[str, Any]:
        absent = split.skipped.absent.pop(number, ())
        names = [name for name in expected if name in absent]
        return {"without": names} if names and "without" not in tasks else {}

    batches = split.fetch_all(Request(indices=part, tasks=direct) for part in requested) if direct else repeat([])
    for part, batches_of_part in zip(parts, batches):
        answers: dict[int, dict[str, Any]] = {index.number: {} for index in part}
        generation = Generation.of(trained, split, part, how)
        for name, task in generating.items():
            for number, ids in write(generation, name).items():
                answers[number][name] = answer_of(task, ids, how)
        for batch in batches_of_part:
            for name, of_task in direct_answers(trained, batch).items():
                for number, answer in of_task.items():
                    answers[number][name] = answer
        yield {
            number: {name: by_task[name] for name in tasks if name in by_task} | without(number) if by_task
            else {"error": split.skipped.bad[number]} for number, by_task in answers.items()
        }  # fmt: skip


def inputs_of_task(tasks: Mapping[str, Task], order: Sequence[str], name: str) -> list[str]:
    """Returns the inputs from which the task `name` predicts, in the order of the model (`order`). Inputs that tasks
    create from other inputs are omitted. For a task that generates an item token by token, this item is omitted too,
    and also the inputs after it that other tasks predict, since the task did not read them in training."""
    task = tasks[name]
    excluded = {input for other in tasks.values() for input in other.needs.makes}
    if task.needs.generates:
        predicted = {input for other in tasks.values() if not other.needs.refines for input in other.needs.inputs}
        excluded |= {task.target} | (predicted & {*list(order)[list(order).index(task.target) :]})
        excluded -= {*task.needs.inputs} - {task.target}
    return [input for input in order if input not in excluded]


def read_by(tasks: Mapping[str, Task], order: Iterable[str], name: str) -> list[str]:
    """Returns the result of `inputs_of_task` without the target of the task."""
    return [input for input in inputs_of_task(tasks, list(order), name) if input != tasks[name].target]


def answer_of(task: Task, ids: list[int], how: Generating) -> dict[str, Any]:
    """Returns the answer for generated ids: `{"text": ...}`, cut before the first stop text, if the target is a text,
    else `{"ids": [...]}`."""
    if task.choppers[task.target].kind == "text":
        return {"text": before(task.restore(ids), how.stop)}
    return {"ids": ids}


@torch.inference_mode()
def direct_answers(trained: TrainedModel, batch: Batch) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns the answers of all tasks with targets in a batch, by task name and sample number, computed in one forward
    pass."""
    numbers = [seed[-1] for seed in batch.first.seeds]
    if not numbers:
        return {}
    outputs = trained.model(planned(trained.model, batch))
    return {
        name: dict(zip(numbers, answers_of(name, trained.tasks[name], finite(outputs[name]), targets, batch)))
        for name, targets in batch.targets.items()
    }


@torch.inference_mode()
def pooled_vectors(trained: TrainedModel, name: str, split: SampleSplit, rows: int = 64) -> Float[Tensor, "n d"] | None:
    """Returns the pooled vector that the head of a task reads, for every sample of a split in order, with shape (n
    samples, width) on the CPU. The vector of a bad sample is NaN. Returns None if the head does not pool one vector per
    sample, or if all samples are bad."""
    model, pooled = trained.model, {}
    split = replace(split, tasks={name: prediction_copy(trained.tasks[name])})
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
