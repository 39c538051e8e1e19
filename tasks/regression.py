"""Regression: one or several numbers per sample, learned in units of their own std, reported in the target's units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor, nn

from ..files.reading import DataError
from ..files.records import Record, as_numbers
from ..models.batch import Batch, Targets
from ..models.heads import MeanPooling, PooledLinear, Pooling, slots_read
from ..tokenizers.media.summaries import span
from .base import Metric, Needs, Task, TrainingColumns, known_values
from .measuring.number_errors import check_loss, errors, known, loss_of, metrics_of_numbers


class Scale(Record):
    """The assets file `scale.json`: mean and std of each number over the training data."""

    mean: Annotated[list[FiniteFloat], Field(min_length=1)]
    std: list[FiniteFloat]

    @model_validator(mode="after")
    def pairs(self) -> Scale:
        """The record itself. Raises ValueError where there are not as many means as stds."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds")
        return self


CLASSES = 20
"""The most different whole numbers among the targets of which a remark says that they may be classes."""


class Regression(Task):
    """Predict the number (or numbers) in the data column `target`; `names` name each in metrics and answers.

    `loss`: `squared` error, or `huber` (half the square up to one std, then linear: Huber 1964), in units of the
    training data's std. Missing targets (None or NaN) are left out of the loss. `pooling`: as in `classification`.
    """

    Learned = Scale

    def __init__(
        self, *, target: str, names: list[str] | None = None, pooling: Callable[..., Pooling] = MeanPooling,
        loss: str = "squared", weight: float = 1.0,
    ):  # fmt: skip
        check_loss(loss)
        self.target, self.names, self.pooling, self.kind, self.weight = target, names, pooling, loss, weight

    @property
    def needs(self) -> Needs:
        return Needs(columns={self.target: self.check})

    def fit(self, data: TrainingColumns) -> Scale:
        """Mean and std of each number (std 1 for a constant). Raises DataError where there are no numbers, or rows of
        unequal lengths."""
        rows, wrong = [], None
        for value in data.column(self.target):
            try:
                rows.append(numbers(value))
            except DataError as error:  # reported as a bad sample when it is read
                wrong = wrong or error
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1:
            reason = f"its values have {lengths} numbers; each needs equally many" if lengths else "it has no numbers"
            raise DataError(f"column {self.target!r}: {reason}{f'; the first: {wrong}' if wrong else ''}")
        values = torch.stack(rows)
        known = ~values.isnan()
        if lacking := len(data) - int(known.any(1).sum()):
            data.say(f"{lacking:,} of {len(data):,} training samples have no number in {self.target!r}: not judged")
        if told := self.told_of_classes(values[known]):
            data.say(told)
        if empty := [number + 1 for number in range(values.shape[1]) if not known[:, number].any()]:
            raise DataError(f"column {self.target!r}: no training sample has number {empty[0]} of {values.shape[1]}")
        mean, std = moments(values, known)
        if not (mean.isfinite() & std.isfinite()).all():  # their squares do not fit into float32
            mean, std = moments(values.double(), known)
        return Scale(mean=mean.tolist(), std=torch.where(std > 0, std, torch.ones_like(std)).tolist())

    def told_of_classes(self, values: Tensor) -> str:
        """A remark on targets that look like class numbers: few different whole numbers, repeated; empty for others."""
        kinds = values.unique()
        if len(kinds) > CLASSES or len(values) < 4 * len(kinds) or (kinds != kinds.round()).any():
            return ""
        told = ", ".join(f"{value:g}" for value in kinds.tolist())
        return (
            f"{self.target!r} holds only {told}: they are learned as numbers, of which 1 is nearer to 2 than to 9; if "
            "they number classes, use classification"
        )

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and std of each number, (v,) both. Raises DataError when there are not as many `names`."""
        known = len(self.learned.mean)
        if self.names is not None and len(self.names) != known:
            raise DataError(f"column {self.target!r} holds {known} numbers, but 'names' has {len(self.names)}")
        return torch.tensor(self.learned.mean), torch.tensor(self.learned.std)

    def check(self, value: Any) -> None:
        """Raises DataError for a value of the target column that has not as many numbers as in the training data."""
        found, known = len(numbers(value)), len(self.scale[0])
        if found != known:
            raise DataError(f"column {self.target!r} holds {known} numbers, not {found} as here")

    def summary(self, values: Sequence[Any]) -> str:
        known = torch.cat([numbers(value) for value in values]) if values else torch.empty(0)
        known = known[~known.isnan()]
        return f"{span(known.tolist())}, mean {known.mean():.3g}" if len(known) else "no numbers"

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return PooledLinear(self.pooling(width), width, len(self.scale[0]))

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Values (s, v) in stds from the mean, NaN where missing, and the pooled slots; `count`: of known numbers."""
        slots, groups = slots_read(self.pooling, batch.first)
        mean, std = self.scale
        missing = torch.full_like(mean, math.nan)
        rows = [missing if value is None else numbers(value) for value in batch.first.labels[self.target]]
        values = (torch.stack([missing, *rows])[1:] - mean) / std  # of no rows, too
        count = int((~values.isnan()).sum())
        return batch, Targets(
            values=values, slots=slots, groups=groups, count=count, of_encoder=batch.encoder is not None
        )

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        return known_values(targets.values)  # a sample without tokens has numbers, too

    def terms(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        return {"loss": loss_of(self.kind, output, targets.values)}

    def measure(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """For each number, (v), in the target's units: summed `absolute` errors, their `squares`, and how many are
        `known`."""
        return errors((output.float() - targets.values) * self.scale[1].to(output.device))

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, then mean absolute (`mae`) and root mean square error (`rmse`) of each number in the target's units:
        with `names` x and y, `mae_x`, `rmse_x`, `mae_y`, `rmse_y`."""
        metrics = metrics_of_numbers(self.kind, self.endings)
        for number, ending in enumerate(self.endings):
            for name in (f"mae{ending}", f"rmse{ending}"):
                metrics[name] = metrics[name]._replace(counted=partial(known, number=number))
        return metrics

    @property
    def endings(self) -> list[str]:
        """The suffix of each number's metrics: `_` and its name or index; empty for a single number without a name."""
        if self.names:
            return [f"_{name}" for name in self.names]
        count = len(self.learned.mean)
        return [f"_{number}" for number in range(count)] if count > 1 else [""]

    def answers(self, output: Float[Tensor, "s v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Every sample's numbers in the target's units: {"values": [1.5, 2.0]}, or by their `names`."""
        mean, std = self.scale
        rows = (output.float().cpu() * std + mean).tolist()
        return [{"values": dict(zip(self.names, row)) if self.names else row} for row in rows]


def moments(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of the known values in each column, both (v,)."""
    count = known.sum(0)
    mean = values.nan_to_num().sum(0) / count
    return mean, ((values - mean).nan_to_num().square().sum(0) / count).sqrt()


def numbers(value: Any) -> Tensor:
    """A column's value as a row of numbers, (v,), NaN where one is missing. Raises DataError for what is no number, or
    infinite in float32: it would make the mean infinite."""
    value = as_numbers(value)
    if isinstance(value, list | tuple):
        value = [math.nan if each is None else each for each in value]
    try:
        found = torch.as_tensor(value, dtype=torch.float32).reshape(-1)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError(f"{value!r} is no number and no list of numbers") from None
    if found.isinf().any():
        raise DataError(f"{value!r} holds a number that is infinite in float32")
    return found
