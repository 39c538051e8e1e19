"""Samples in memory as a split, and what a run predicts for them as a part of another run (`RunPart`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..data.samples import Samples
from ..data.split import SampleSplit
from ..inference.predict import pooled_vectors, predict
from ..inference.requests import as_samples
from ..inference.trained import TrainedModel
from ..tasks.base import Task, target_columns
from ..tokenizers.base import Chopper
from .build import read_samples
from .settings.config import Config

ROWS_AT_ONCE = 256
"""The number of samples in one forward pass."""


def memory_split(
    config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], samples: Samples
) -> SampleSplit:  # fmt: skip
    """Returns samples in memory as a split. A sample maps inputs, and columns with true values, to raw values."""
    columns, labels = {name: name for name in choppers}, target_columns(tasks)
    return read_samples(config, samples, "input samples", choppers, lambda text: None, columns, labels)


@dataclass(frozen=True)
class Predictor:
    """Predicts for samples in memory; can be sent to another process."""

    config: Config
    choppers: Mapping[str, Chopper]
    trained: TrainedModel

    def predict(self, samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Returns one mapping per sample: the prediction of every task, by task name, as `Run.predict` returns it."""
        return predict(self.trained, self.split(samples), rows=ROWS_AT_ONCE) if samples else []

    def pooled(self, name: str, samples: Sequence[Mapping[str, Any]]) -> Float[Tensor, "n d"] | None:
        """Returns the vectors (n, d) that the head of the task `name` reads, or None (see `pooled_vectors`)."""
        return pooled_vectors(self.trained, name, self.split(samples), ROWS_AT_ONCE)

    def check_answer(self, name: str, text: str) -> None:
        """Raises ValueError if the task `name` can never predict this text."""
        self.trained.tasks[name].check_answer(text)

    def split(self, samples: Sequence[Mapping[str, Any]]) -> SampleSplit:
        return memory_split(self.config, self.choppers, self.trained.tasks, as_samples(samples))
