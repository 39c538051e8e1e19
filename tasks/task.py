"""What every task is made of: supervised places and targets in, named loss terms and metrics out. No parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from ..models.batch import PlannedSet, Targets


class Term(NamedTuple):
    """One loss term of one micro-batch. The objective is the sum over terms of weight * total sum / total count.

    Sums and counts, never means: so that accumulation, ranks and ragged targets agree by construction.
    """

    sum: Tensor
    count: int
    weight: float = 1.0


class Task:
    """Base of all tasks. `target` names the input (or data column) that the task is about."""

    target: str

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        """The head that answers this task; the `Mixture` owns it."""
        raise NotImplementedError

    def targets(self, planned: PlannedSet) -> Targets:
        """Which places are judged, and against what; computed on the CPU from the plan."""
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Term]:
        """The named loss terms of one micro-batch; the first is the one reported as `loss`."""
        raise NotImplementedError

    def summary(self, nats: float, count: int, text_bytes: int | None = None) -> dict[str, float]:
        """The metrics of a whole split from the sum of its first loss term, its count and the text's size in bytes."""
        return {"loss": nats / count}
