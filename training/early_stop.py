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
    metric: str | None = None
    """The metric of the evaluations; None: unknown."""
    improvement: FiniteFloat = 0.0
    """The difference that counted as an improvement."""

    def by(self, metric: str, improvement: float) -> Patience:
        """Returns the record for evaluations by this metric and improvement. It begins anew if the earlier evaluations
        had others."""
        if self.metric is None or (self.metric, self.improvement) == (metric, improvement):
            return self.model_copy(update={"metric": metric, "improvement": improvement})
        return Patience(metric=metric, improvement=improvement)

    def after(self, score: float) -> Patience:
        """Returns the record after one more evaluation. A score that is not finite is no improvement."""
        is_better = isfinite(score) and (self.best is None or score < self.best - self.improvement)
        return self.model_copy(update={"best": score, "waited": 0} if is_better else {"waited": self.waited + 1})


def still_stops(patience: Patience, stop: EarlyStop | None, best: str | None) -> bool:
    """Returns whether a run that stopped early with the record `patience` would also stop with the setting `stop`.
    `best` is the metric `checkpoints.best`."""
    name = stop and (stop.metric or best)
    return bool(stop and name) and patience.by(name, stop.improvement).waited >= stop.patience
