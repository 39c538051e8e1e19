"""Prediction by a run that is a part of another: answers, and the vectors that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ...data.samples.dataset import Listed
from ...data.samples.split import SampleSplit
from ...inference.predict import pooled_vectors, predict
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


def pooler(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]
) -> Callable[[str, Sequence[Mapping[str, Any]]], Float[Tensor, "n d"] | None]:
    """A function from a task's name and samples to the vectors that its head reads; it can be pickled."""
    return partial(vectors, config, model, choppers, tasks)


def answers(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    samples: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every task's answer to each sample."""
    return predict(model, tasks, split_of(config, choppers, tasks, samples), rows=ROWS) if samples else []


def vectors(
    config: Config, model: Model, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], name: str,
    samples: Sequence[Mapping[str, Any]],
) -> Float[Tensor, "n d"] | None:  # fmt: skip
    """One vector for each sample; see `pooled_vectors`."""
    return pooled_vectors(model, name, tasks[name], split_of(config, choppers, tasks, samples), ROWS)


def split_of(
    config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], samples: Sequence[Mapping[str, Any]]
) -> SampleSplit:
    """Samples in memory as a split."""
    keys = [f"sample {number + 1}" for number in range(len(samples))]
    columns, labels = {name: name for name in choppers}, [each for t in tasks.values() for each in t.needs.columns]
    return read_samples(config, Listed(keys, samples), "given", choppers, lambda text: None, columns, labels)
