"""Prediction by a run that is a part of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ...data.samples.dataset import Listed
from ...inference.predict import predict
from ...models.model import Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ..data.samples import read_samples
from ..settings.config import Config

ROWS = 256
"""How many samples are read at a time."""


def predictor(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]
) -> Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]:
    """A function from samples (mappings of inputs to raw values) to every task's answers, as `Run.predict` gives
    them; it can be pickled."""
    return partial(answers, config, model, choppers, tasks)


def answers(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    samples: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every task's answer to each sample."""
    keys = [f"sample {number + 1}" for number in range(len(samples))]
    columns, labels = {name: name for name in choppers}, [each for t in tasks.values() for each in t.needs.columns]
    split = read_samples(config, Listed(keys, samples), "given", choppers, lambda text: None, columns, labels)
    return predict(model, tasks, split, rows=ROWS) if samples else []
