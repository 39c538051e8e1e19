"""Regression: one or several numbers per sample, learned in units of their own std, reported in the target's units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, FiniteFloat
from torch import Tensor, nn

from ..models.batch import SetPlan, Targets
from ..models.heads import MeanPooling, PooledLinear, Pooling
from ..tokenizers.files.reading import DataError
from ..tokenizers.files.records import Record, read_record
from ..tokenizers.files.writing import write_json
from .base import Metric, Task, Term, TrainingColumns


class Scale(Record):
    """What a run keeps of its training data: the mean and the std of every number."""

    mean: Annotated[list[FiniteFloat], Field(min_length=1)]
    std: list[FiniteFloat]


CLASSES = 20
"""Of no more whole numbers than these a regression asks whether they are classes."""


class Regression(Task):
    """Predict the number (or numbers) in the data column `target`; `names` are what each is called in the metrics.

    `loss`: `squared` error, or `huber` (squared up to one std, then linear: Huber 1964), in units of the training
    data's std. A target that is missing (None or NaN) is not judged.
    """

    in_nats, target_is_column = False, True

    def __init__(
        self, *, target: str, names: list[str] | None = None, pooling: Callable[..., Pooling] = MeanPooling,
        loss: str = "squared", weight: float = 1.0,
    ):  # fmt: skip
        if loss not in ("squared", "huber"):
            raise ValueError(f"loss must be 'squared' or 'huber', not {loss!r}")
        self.target, self.names, self.pooling, self.kind, self.weight = target, names, pooling, loss, weight
        self.reading = getattr(pooling, "target", pooling)
        self.mean, self.std = torch.zeros(1), torch.ones(1)

    def fit(self, data: TrainingColumns) -> Regression:
        rows = []
        for value in data.column(self.target):
            with suppress(DataError):  # it counts as bad when its turn comes
                rows.append(numbers(value))
        if not rows or len({len(row) for row in rows}) > 1:
            lengths = sorted({len(row) for row in rows})
            raise DataError(
                f"column {self.target!r}: {'no numbers' if not rows else f'rows of {lengths} numbers'} to learn from"
            )
        values = torch.stack(rows)
        known = ~values.isnan()
        if lacking := len(data) - int(known.any(1).sum()):
            self.notes = (
                f"{lacking:,} of {len(data):,} training samples have no number in {self.target!r}: not judged",
            )
        self.notes += self.note_on_classes(values[known])
        mean = values.nan_to_num().sum(0) / known.sum(0)
        std = ((values - mean).nan_to_num().square().sum(0) / known.sum(0)).sqrt()
        self.mean, self.std = mean, torch.where(std > 0, std, torch.ones_like(std))
        return self.checked()

    def note_on_classes(self, values: Tensor) -> tuple[str, ...]:
        """A word on targets that look like the numbers of classes: a few whole numbers again and again."""
        kinds = values.unique()
        if len(kinds) > CLASSES or len(values) < 4 * len(kinds) or (kinds != kinds.round()).any():
            return ()
        told = ", ".join(f"{value:g}" for value in kinds.tolist())
        return (
            f"{self.target!r} holds only {told}: they are learned as numbers, of which 1 is nearer to 2 than "
            "to 9; if they "
            "number classes, use classification",
        )

    def checked(self) -> Regression:
        """Itself. Raises DataError when `names` does not name each number."""
        if self.names is not None and len(self.names) != len(self.mean):
            raise DataError(f"column {self.target!r} holds {len(self.mean)} numbers, but 'names' has {len(self.names)}")
        return self

    def check(self, value: Any) -> None:
        if len(numbers(value)) != len(self.mean):
            raise DataError(f"column {self.target!r} holds {len(self.mean)} numbers, not {len(numbers(value))} as here")

    def save(self, folder: Path) -> None:
        write_json(folder / "scale.json", {"mean": self.mean.tolist(), "std": self.std.tolist()})

    def load(self, folder: Path) -> Regression:
        scale = read_record(folder / "scale.json", Scale)
        self.mean, self.std = torch.tensor(scale.mean), torch.tensor(scale.std)
        if len(self.mean) != len(self.std):
            raise DataError(f"{folder / 'scale.json'}: {len(self.mean)} means and {len(self.std)} stds")
        return self.checked()

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        return PooledLinear(self.pooling(width), width, len(self.mean))

    def targets(self, planned: SetPlan) -> Targets:
        slots, groups = self.reading.slots(planned)
        missing = torch.full_like(self.mean, math.nan)
        rows = [missing if value is None else numbers(value) for value in planned.labels[self.target]]
        values = (torch.stack([missing, *rows])[1:] - self.mean) / self.std  # of no rows, too
        return Targets(values=values, slots=slots, groups=groups, count=int((~values.isnan()).sum()))

    def terms(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Term]:
        known = ~targets.values.isnan()
        wanted = torch.where(known, targets.values, 0.0)
        each = F.huber_loss if self.kind == "huber" else F.mse_loss
        return {
            "loss": Term((each(output.float(), wanted, reduction="none") * known).sum(), targets.count, self.weight)
        }

    def measure(self, output: Float[Tensor, "s v"], targets: Targets) -> dict[str, Tensor]:
        known = ~targets.values.isnan()
        error = torch.where(known, (output.float() - targets.values) * self.std.to(output.device), 0.0)
        return {"absolute": error.abs().sum(0), "squares": error.square().sum(0), "known": known.sum(0)}

    @property
    def measures(self) -> dict[str, Metric]:
        each = {f"{kind}{end}": Metric("of the target") for end in self.endings for kind in ("mae", "rmse")}
        return {"loss": Metric("squared stds" if self.kind == "squared" else "Huber, in stds")} | each

    @property
    def endings(self) -> list[str]:
        """What tells each number's metrics apart: its name, else its place; nothing where there is one."""
        if self.names:
            return [f"_{name}" for name in self.names]
        return [f"_{number}" for number in range(len(self.mean))] if len(self.mean) > 1 else [""]

    def summary(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """`loss`, then mean absolute and root mean square error in the target's units, for each number by its name."""
        found = super().summary(sums)
        known = sums["known"].clamp(min=1)
        for end, absolute, squares, count in zip(self.endings, sums["absolute"], sums["squares"], known):
            found |= {f"mae{end}": float(absolute / count), f"rmse{end}": float((squares / count).sqrt())}
        return found

    def answer(self, output: Float[Tensor, "v"]) -> dict[str, Any]:
        """One sample's numbers, in the target's units."""
        values = (output.float().cpu() * self.std + self.mean).tolist()
        return {"values": dict(zip(self.names, values)) if self.names else values}


def numbers(value: Any) -> Tensor:
    """A column's value as a row of numbers; NaN where one is missing. Raises DataError for what is no number, and
    for what is infinite: nothing can be learned from it, and it would hide in a mean."""
    if isinstance(value, list | tuple):
        value = [math.nan if each is None else each for each in value]
    try:
        found = torch.as_tensor(value, dtype=torch.float32).reshape(-1)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError(f"{value!r} is no number and no list of numbers") from None
    if found.isinf().any():
        raise DataError(f"{value!r} holds a number that is infinite in float32")
    return found
