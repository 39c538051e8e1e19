"""Regression: predicts one or several numbers per sample. They are learned in units of their std, and reported in the
unit of the data."""

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
from ..tokenizers.base import Example
from ..tokenizers.media.column_statistics import ColumnStatistics, constant_columns
from ..tokenizers.media.summaries import span
from .base import Metric, Needs, Task, TrainingColumns, known_values
from .baselines.simple_models import Baseline, number_baselines
from .measuring.number_errors import check_loss, errors, known_count, loss_of, metrics_of_numbers
from .measuring.number_report import NumberReporter
from .measuring.report import Reporter


class Scale(Record):
    """The content of the assets file `scale.json`: the mean and the std of each number over the training data."""

    mean: Annotated[list[FiniteFloat], Field(min_length=1)]
    std: list[FiniteFloat]

    @model_validator(mode="after")
    def pairs(self) -> Scale:
        """Checks the record. Raises ValueError if `mean` and `std` have different lengths."""
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds")
        return self


RESOLUTION = 1e-12
"""Targets are equal up to rounding errors of float64 if their std is at most this share of their mean."""
CLASSES = 20
"""The largest number of distinct integer targets for which a warning says that the targets may be classes."""


class Regression(Task):
    """Predicts the number, or the list of numbers, in the data column `target`. `names`: the names of the numbers in
    metrics and answers.

    `loss`: `squared` error, or `huber` (half the square for errors up to one std, linear above: Huber 1964), in units
    of the std of the training data. Missing numbers (None or NaN) are excluded from the loss. `pooling`: see
    `classification`.
    """

    Learned = Scale
    vectors = ("values",)
    true_vectors = ("",)

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
        """Returns the mean and std of each number (std 1 if all its values are equal, which is printed). Raises
        DataError if the column has no value that consists of numbers, if two values have different counts of numbers,
        or if one of the numbers is missing in all training samples."""
        rows, first_error = [], None
        for value in data.column(self.target):
            try:
                rows.append(numbers(value))
            except DataError as error:  # reported as a bad sample when it is read
                first_error = first_error or error
        lengths = sorted({len(row) for row in rows})
        if len(lengths) != 1:
            reason = f"its values have {lengths} numbers; all need equally many" if lengths else "it has no numbers"
            cause = f"; the first error: {first_error}" if first_error else ""
            raise DataError(f"column {self.target!r}: {reason}{cause}")
        values = torch.stack(rows)
        is_present = ~values.isnan()
        if missing := len(data) - int(is_present.any(1).sum()):
            samples = f"{missing:,} of {len(data):,} training samples"
            data.say(f"{samples} have no number in {self.target!r} and are not supervised")
        if warning := self.class_warning(values[is_present]):
            data.say(warning)
        if empty := [number + 1 for number in range(values.shape[1]) if not is_present[:, number].any()]:
            raise DataError(f"column {self.target!r}: no training sample has number {empty[0]} of {values.shape[1]}")
        statistics = ColumnStatistics(values.shape[1])
        statistics.add(values)
        if constant := constant_columns(values):
            number = f" (number {constant[0] + 1})" * (values.shape[1] > 1)
            data.say(f"{self.target!r}{number} is {statistics.mean[constant[0]]:g} in all training samples")
        return Scale(mean=statistics.mean.tolist(), std=statistics.scale(RESOLUTION).tolist())

    def class_warning(self, values: Tensor) -> str:
        """Returns a warning if the targets look like classes: at most CLASSES distinct values, all integers, that occur
        four times or more on average. Otherwise returns an empty text."""
        distinct = values.unique()
        if len(distinct) > CLASSES or len(values) < 4 * len(distinct) or (distinct != distinct.round()).any():
            return ""
        listed = ", ".join(f"{value:g}" for value in distinct.tolist())
        return (
            f"{self.target!r} holds only {listed}: they are learned as numbers, so that 1 is nearer to 2 than to 9; if "
            "they are classes, use classification"
        )

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """The mean and std of each number, both (v,) and float64. Raises DataError if the number of `names` is not
        v."""
        count = len(self.learned.mean)
        if self.names is not None and len(self.names) != count:
            raise DataError(f"column {self.target!r} holds {count} numbers, but 'names' has {len(self.names)}")
        return tuple(torch.tensor(row, dtype=torch.float64) for row in (self.learned.mean, self.learned.std))

    def check(self, value: Any) -> None:
        """Raises DataError if a value of the target column is not a number or list of numbers, or has another count of
        numbers than the values in the training data."""
        count, expected = len(numbers(value)), len(self.scale[0])
        if count != expected:
            raise DataError(f"column {self.target!r} holds {expected} numbers in the training data, but {count} here")

    def summary(self, values: Sequence[Any]) -> str:
        present = torch.cat([numbers(value) for value in values]) if values else torch.empty(0)
        present = present[~present.isnan()]
        return f"{span(present.tolist())}, mean {present.mean():.3g}" if len(present) else "no numbers"

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return PooledLinear(self.pooling(width), width, len(self.scale[0]))

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch, and the targets: the values (s, v) as (value - mean) / std, NaN if missing, and
        the slots that the pooling reads. `count` is the number of values that are not missing."""
        slots, groups = slots_read(self.pooling, batch.first)
        mean, std = self.scale
        missing = torch.full_like(mean, math.nan)
        rows = [missing if value is None else numbers(value) for value in batch.first.labels[self.target]]
        rows = torch.stack([missing, *rows])[1:]  # an extra row, because stack fails without rows
        values = ((rows - mean) / std).float()
        count = int((~values.isnan()).sum())
        return batch, Targets(
            values=values, slots=slots, groups=groups, count=count, of_encoder=batch.encoder is not None
        )

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        return known_values(targets.values)  # a sample may have numbers but no tokens

    def terms(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        return {"loss": loss_of(self.kind, output, targets.values)}

    def measure(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        """Returns three sums (v) over the samples, for each number, in the unit of the data: `absolute` (absolute
        errors), `squares` (squared errors), and `known` (the count of targets that are not missing)."""
        std = self.scale[1].float().to(output.device, non_blocking=True)
        return errors((output.float() - targets.values) * std)

    @property
    def metrics(self) -> dict[str, Metric]:
        """`loss`, and the mean absolute error (`mae`) and root mean square error (`rmse`) of each number in the unit of
        the data: with the `names` x and y, `mae_x`, `rmse_x`, `mae_y`, `rmse_y`."""
        metrics = metrics_of_numbers(self.kind, self.endings)
        for number, ending in enumerate(self.endings):
            for name in (f"mae{ending}", f"rmse{ending}"):
                metrics[name] = metrics[name]._replace(counted=partial(known_count, number=number))
        return metrics

    @property
    def endings(self) -> list[str]:
        """The suffix of the metrics of each number: `_` and the number's name or, without `names`, its index. A single
        number without a name has an empty suffix."""
        if self.names:
            return [f"_{name}" for name in self.names]
        count = len(self.learned.mean)
        return [f"_{number}" for number in range(count)] if count > 1 else [""]

    @property
    def headline(self) -> str:
        return "loss" if len(self.endings) > 1 else f"mae{self.endings[0]}"

    @property
    def baselines(self) -> Sequence[Baseline]:
        return number_baselines()

    def as_answer(self, value: Any) -> Any:
        return as_numbers(value)

    def reporter(self) -> Reporter:
        mean, std = self.scale
        return NumberReporter(self.names or [str(number) for number in range(len(mean))], std.tolist())

    def answers(self, output: Float[Tensor, "s v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns the predicted numbers of every sample in the unit of the data: {"values": [1.5, 2.0]}, or with
        `names` {"values": {"x": 1.5, "y": 2.0}}."""
        mean, std = self.scale
        rows = (output.double().cpu() * std + mean).tolist()
        return [{"values": dict(zip(self.names, row)) if self.names else row} for row in rows]


def numbers(value: Any) -> Tensor:
    """Returns a column's value as a row of numbers (v,), float64, so that times near 1.7e9 keep their fractions; None
    in a list becomes NaN. Raises DataError if the value is not a number or list of numbers, or if a number is infinite
    in float32, in which errors are summed."""
    value = as_numbers(value)
    if isinstance(value, list | tuple):
        value = [math.nan if number is None else number for number in value]
    try:
        row = torch.as_tensor(value, dtype=torch.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError(f"{value!r} is not a number or a list of numbers") from None
    if row.float().isinf().any():
        raise DataError(f"{value!r} holds a number that is infinite in float32")
    return row


EXAMPLE = Example(
    options={"target": "value"},
    inputs={
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
        "text": {"use": "text", "encoding": "characters"},
    },
)
