"""Early stopping (`training.stop`): ends the training if a validation metric no longer improves."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from pydantic import FiniteFloat

from ..files.records import Record


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Ends the training after `patience` evaluations in a row in which `metric` did not improve by more than
    `improvement`. `metric` is a metric of the validation split, such as `val/accuracy`; null: the metric
    `checkpoints.best`. The best checkpoint is kept. Raises ValueError if a number is out of range."""

    metric: str | None = None
    patience: int = 5
    improvement: float = 0.0

    def __post_init__(self):
        if not (1 <= self.patience <= 1_000_000 and 0 <= self.improvement < float("inf")):
            raise ValueError("patience must be from 1 to 1,000,000, and improvement at least 0")


class Patience(Record):
    """The evaluations so far, as stored in a checkpoint."""

    best: FiniteFloat | None = None
    """The best score so far; smaller is better. None: no finite score yet."""
    waited: int = 0
    """The number of evaluations since the best one."""

    def after(self, score: float, improvement: float) -> Patience:
        """Returns the record after one more evaluation. A score that is not finite is no improvement."""
        if isfinite(score) and (self.best is None or score < self.best - improvement):
            return Patience(best=score, waited=0)
        return Patience(best=self.best, waited=self.waited + 1)
