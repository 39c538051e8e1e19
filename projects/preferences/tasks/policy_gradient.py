"""Policy gradient: language modelling in which the loss of each sample is multiplied by the advantage of its answer
(REINFORCE, Williams 1992)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ....files.reading import DataError, shown
from ....models.batch import IGNORED, Batch, Targets
from ....models.generation.beam_search import Search
from ....models.generation.sampling import Sampling
from ....models.heads import Tied, VocabularyHead
from ....tasks.base import Needs
from ....tasks.judging import Judge
from ....tasks.language_modeling import LanguageModeling
from ....tasks.measuring.texts import TextMetric
from ....tokenizers.base import Example


class PolicyGradient(LanguageModeling):
    """Raises the probability of answers with a positive advantage and lowers that of answers with a negative one: the
    loss of a token is its cross-entropy times the advantage of its sample (a sample without a number: times 1, as in
    validation). `advantage`: the data column with these numbers. The other options are those of `language_modeling`:
    `target`, `head`, `metrics`, `search`, `sampling` and `guidance`.

    A rule of the data set makes the answers (`data/rules.py`)."""

    def __init__(
        self, *, target: str, advantage: str = "advantage", head: Callable[..., VocabularyHead] = Tied,
        metrics: tuple[TextMetric, ...] | dict[str, Callable[[], Judge]] = (), search: Search = Search(),
        sampling: Sampling | None = None, guidance: float = 1.0, weight: float = 1.0,
    ):  # fmt: skip
        super().__init__(
            target=target, head=head, metrics=metrics, search=search, sampling=sampling, guidance=guidance,
            weight=weight,
        )  # fmt: skip
        self.advantage = advantage

    @property
    def needs(self) -> Needs:
        return replace(super().needs, columns={self.advantage: check_number})

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch and the targets of language modelling; `weights` are the advantages."""
        batch, targets = super().targets(batch)
        if targets.slots is None or not len(targets.values):
            return batch, targets
        values = [1.0 if value is None else float(value) for value in batch.main.labels[self.advantage]]
        samples = batch.main.tokens.sample.flatten()[targets.slots].long() - 1
        return batch, replace(targets, weights=torch.tensor(values)[samples])

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        losses = F.cross_entropy(output.float(), targets.values, ignore_index=IGNORED, reduction="none")
        return {"loss": (losses if targets.weights is None else losses * targets.weights).sum()}


def check_number(value: Any) -> None:
    """Raises DataError if the value is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"an advantage must be a finite number, not {shown(value)}")


EXAMPLE = Example(
    options={"target": "other", "advantage": "value"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "other": {"use": "text", "encoding": "bytes"},
    },
    model={"attention": "causal & same_sample"},
)
