"""Prediction, from samples to answers: a class with its probabilities, numbers, a text, as each task answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.arithmetic import finite
from ..models.generation.beam_search import Search
from ..models.generation.sampling import Sampling
from ..models.model import Model
from ..tasks.base import Task, asking
from .generate import before, generator_of, write_texts


def predict(
    model: Model, tasks: Mapping[str, Task], split: SampleSplit, *, sampling: Sampling | None = None,
    search: Search | None = None, prompt: str = "", stop: Sequence[str] = (), max_tokens: int | None = None,
    seed: int | None = None, cached: bool = True, rows: int = 64,
) -> list[dict[str, Any]]:  # fmt: skip
    """Every task's answer to each sample of a split, by task, in the order of the samples: `[{"digit": {...}}, ...]`;
    `{"error": why}` for a sample that cannot be read.

    Texts begin with `prompt`, which is not given back. They are searched for as their task says, or by `search`, but
    drawn at random where `sampling` is given (with `seed`); they have at most `max_tokens` tokens and end before a
    `stop` text; `cached` as for a `Session`. `rows` samples are read at a time.
    """
    tasks = {name: asking(task) for name, task in tasks.items()}
    found: list[dict[str, Any]] = [{} for _ in range(len(split))]
    every, generator = split.all(), generator_of(seed, model)
    for first in range(0, len(every), rows):
        places = every[first : first + rows]
        for name, task in tasks.items():
            if task.needs.generates:
                texts = write_texts(model, name, task, split, places, prompt=prompt, sampling=sampling, search=search,
                                    generator=generator, most=max_tokens, cached=cached)  # fmt: skip
                answers = {number: {"text": before(text, stop)} for number, text in texts.items()}
            else:
                answers = read_off(model, name, task, split, places)
            for number, answer in answers.items():
                found[number][name] = answer
    return [answer or {"error": split.unread.bad[number]} for number, answer in enumerate(found)]


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
