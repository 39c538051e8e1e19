"""Prediction, from samples to answers: a class with its probabilities, numbers, a text, as each task answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.arithmetic import finite
from ..models.model import Model
from ..tasks.base import Task, asking
from .generate import write
from .generating import Generating, before


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
    return [answer or {"error": split.unread.bad[number]} for number, answer in enumerate(found)]


def answer_of(task: Task, ids: list[int], how: Generating) -> dict[str, Any]:
    """The answer of generated ids: {"text": ...} or {"ids": [...]}."""
    if task.choppers[task.target].kind == "text":
        return {"text": before(task.restore(ids), how.stop)}
    return {"ids": ids}


@torch.inference_mode()
def read_off(
    model: Model, name: str, task: Task, split: SampleSplit, places: Sequence[Place]
) -> dict[int, dict[str, Any]]:
    """One task's answers by the samples' numbers, from one forward pass; bad samples are left out."""
    batch = replace(split, tasks={name: task}).batch(places)
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return {}
    like = next(model.parameters())
    output = finite(model(model.plan(batch, dtype=like.dtype, device=like.device).to(like.device))[name])
    return dict(zip(numbers, task.answers(output, batch.targets[name], batch)))
