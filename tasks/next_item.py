"""Prediction in time: a token of one input predicts the first later token of another input, such as the action that
follows a state. The times of the tokens are in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, FiniteFloat, model_validator
from torch import Tensor, nn

from ..files.reading import DataError
from ..files.records import Record
from ..models.batch import IGNORED, Batch, SetPlan, Targets
from ..models.heads import SlotLinear
from ..tokenizers.base import SECONDS, Chopper, Example, axes_of, readable
from .base import LOSS, Metric, Needs, Task, TrainingColumns, per_target
from .language_modeling import losses_of_ids
from .measuring.number_errors import check_loss, errors, loss_of, metrics_of_numbers


class Bounds(Record):
    """The content of the assets file `bounds.json`: the smallest and the largest value of each number in the training
    data, in the unit of the data."""

    low: Annotated[list[FiniteFloat], Field(min_length=1)]
    high: list[FiniteFloat]

    @model_validator(mode="after")
    def ordered(self) -> Bounds:
        """Checks the record. Raises ValueError unless `low` and `high` have the same length and no value of `low` is
        larger than the value of `high` at the same index."""
        if len(self.low) != len(self.high) or any(low > high for low, high in zip(self.low, self.high)):
            raise ValueError(f"low {self.low} and high {self.high} are not ranges")
        return self


class Pairs(NamedTuple):
    """The supervised tokens and their targets, as indices of tokens in the `Chunks` of the two inputs."""

    supervised: Int[Tensor, "t"]
    """Indices of tokens of the input `at`."""
    following: Int[Tensor, "t"]
    """For each supervised token, the index of the first later token of the input `target`; -1 if there is none in its
    sample."""


class NextItem(Task):
    """Predicts, at each time of the input `at`, the first token of the input `target` with a later time (in seconds).
    For states at 0 and 1 s and actions at 0.5 and 1.5 s, the state at 0 s predicts the action at 0.5 s.

    If the tokens of `target` are categories, they are classified. If they contain numbers, each number is predicted in
    units of its std; `loss` is then `squared` or `huber`, as for `regression`. If several tokens of `at` have the same
    time, such as the patches of an image, only the last one is supervised. Both inputs must have times. With `bounded`,
    predicted numbers are limited to the range from the smallest to the largest value in the training data, such as -2
    to 2. In an imported run, which has no training data, normalised numbers are limited to the range from -1 to 1.
    """

    def __init__(self, *, target: str, at: str, loss: str = "squared", bounded: bool = False, weight: float = 1.0):
        check_loss(loss)
        self.target, self.at, self.kind, self.bounded, self.weight = target, at, loss, bounded, weight
        self.Learned = Bounds if bounded else None

    def problems(self, name, wiring):
        for key, input in (("target", self.target), ("at", self.at)):
            if input in wiring.inputs and input not in wiring.in_time:
                yield ("tasks", name, key), f"the input {input!r} has no times; set its `offset`"
            elif key == "at" and input not in wiring.inputs:
                yield ("tasks", name, key), f"no input is named {input!r}; possible: {', '.join(wiring.inputs)}"

    def fit(self, data: TrainingColumns) -> Bounds:
        """Returns the smallest and the largest value of each number of the target. Raises DataError if the training
        data contain no value of one of the numbers."""
        low = high = np.full(len(self.chopper.numbers), np.nan)
        try:
            for item in readable(data.items(self.target), self.chopper.decode, "item", "in the training data"):
                values = self.chopper.measured(self.chopper.chop(item).values.double()).numpy()
                low, high = np.fmin(low, np.fmin.reduce(values)), np.fmax(high, np.fmax.reduce(values))
        except ValueError as error:
            raise DataError(f"input {self.target!r}: {error}") from error
        if missing := [name for name, value in zip(self.chopper.numbers, low) if np.isnan(value)]:
            raise DataError(f"input {self.target!r}: {missing[0]!r} has no value in the training data")
        return Bounds(low=low.tolist(), high=high.tolist())

    @property
    def bounds(self) -> tuple[Float[Tensor, "v"], Float[Tensor, "v"]] | None:
        """(low, high): the smallest and the largest value of each number (v) that can be predicted, normalised. None if
        the task is not `bounded`."""
        if not self.bounded:
            return None
        count = len(self.chopper.numbers)
        if self.learned is None:
            return -torch.ones(count), torch.ones(count)
        zero, one = self.chopper.measured(torch.tensor([[0.0] * count, [1.0] * count], dtype=torch.float64))
        learned = torch.tensor([self.learned.low, self.learned.high], dtype=torch.float64)
        low, high = ((learned - zero) / (one - zero)).float()
        return low, high

    @property
    def needs(self) -> Needs:
        return Needs(inputs=(self.target,), supervised_at=(self.at,), hides="shifted")

    @property
    def chopper(self) -> Chopper:
        """The chopper of the input `target`. Raises ValueError if its tokens are neither categories nor numbers."""
        chopper = self.choppers[self.target]
        if chopper.choices is None and not chopper.numbers:
            raise ValueError(
                f"tokens of the input {self.target!r} ({type(chopper).__name__}) are neither categories nor numbers; "
                "possible: `use: category` without a shape, or `use: sensor` without categories"
            )
        return chopper

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        if getattr(self.choppers[self.at], "empty", ()):
            raise ValueError(
                f"the input {self.at!r} drops pieces (option `empty`), so a time step may have no token; set `at` to "
                "an input with a token in every time step"
            )
        if self.bounded and self.chopper.choices:
            raise ValueError(f"bounded is for numbers; tokens of {self.target!r} are categories")
        return SlotLinear(width, self.chopper.choices or len(self.chopper.numbers), self.bounds)

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the unchanged batch, and the supervised slots with their values: indices of categories (t), or
        normalised numbers (t, v), NaN if missing. Tokens of `at` without a later token of `target` are omitted; in
        `predict`, they are included without a value."""
        planned = batch.main
        target, at = (planned.chunks.get(name) for name in (self.target, self.at))
        choices, numbers = self.chopper.choices, len(self.chopper.numbers)
        unknown = torch.full((1,), IGNORED) if choices else torch.full((1, numbers), torch.nan)
        if at is None or (target is None and not self.for_prediction):
            none = torch.zeros(0, dtype=torch.long)
            return batch, Targets(values=unknown[:0], slots=none, carriers=none, groups=none)
        paired = pairs(planned, self.at, self.target, axes_of(self.choppers.values()).index(SECONDS))
        kept = torch.ones_like(paired.supervised, dtype=torch.bool) if self.for_prediction else paired.following >= 0
        supervised, following = paired.supervised[kept], paired.following[kept]
        values, carriers = unknown.repeat(len(supervised), *[1] * (unknown.dim() - 1)), torch.full_like(supervised, -1)
        if target is not None:
            has_next = following >= 0
            values[has_next] = (target.values[:, 0] if choices else target.values)[following[has_next]]
            carriers[has_next] = target.slots[following[has_next]]
        slots = at.slots[supervised]
        count = int((values != IGNORED).sum() if choices else (~values.isnan()).sum())
        return batch, Targets(
            values=values, slots=slots, carriers=carriers, count=count, classes=choices or 0,
            groups=planned.tokens.sample.flatten()[slots] - 1,
        )  # fmt: skip

    def terms(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        if self.chopper.choices:
            return {"loss": F.cross_entropy(output.float(), targets.values, ignore_index=IGNORED, reduction="sum")}
        return {"loss": loss_of(self.kind, output, targets.values)}

    def losses(self, output: Float[Tensor, "t v"], targets: Targets) -> Float[Tensor, "j"]:
        if self.chopper.choices:
            return losses_of_ids(output, targets.values)
        return torch.stack([loss_of(self.kind, *row) for row in zip(output.split(1), targets.values.split(1))])

    def chance(self) -> float | None:
        return math.log(self.chopper.choices) if self.chopper.choices else None

    def measure(self, output: Float[Tensor, "t v"], targets: Targets) -> dict[str, Tensor]:
        """Returns the number of correctly predicted categories as `right`; for numbers, the sums of `regression`
        (`errors`)."""
        if self.chopper.choices:
            return {"right": (output.argmax(-1) == targets.values).sum()}
        return errors(self.chopper.measured(output.float()) - self.chopper.measured(targets.values))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """For categories, `loss` and `accuracy`. For numbers, `loss`, and `mae` and `rmse` of each number in its unit,
        as for `regression`."""
        if self.chopper.choices:
            right = Metric("share of targets", larger_is_better=True, of_sums=partial(per_target, name="right"))
            return {"loss": LOSS, "accuracy": right}
        names = self.chopper.numbers
        return metrics_of_numbers(self.kind, [f"_{name}" for name in names] if len(names) > 1 else [""])

    def answers(self, output: Float[Tensor, "t v"], targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns for every sample the predictions in order of time. For categories: the most likely next ones and
        their probabilities, {"next": [1, 0], "probabilities": [0.9, 0.6]}. For numbers: the next values in the units of
        the data, {"next": [[0.1, 2.0]]}."""
        answers: list[dict[str, Any]] = []
        for sample in range(batch.main.samples):
            rows = output[targets.groups.to(output.device) == sample].float().cpu()
            if self.chopper.choices:
                best = rows.softmax(-1).max(-1)
                answers.append({"next": best.indices.tolist(), "probabilities": best.values.tolist()})
            else:
                answers.append({"next": self.chopper.measured(rows).tolist()})
        return answers


def pairs(planned: SetPlan, at: str, target: str, seconds: int) -> Pairs:
    """Returns the supervised tokens of the input `at`, one for each time (the last one), and for each of them the first
    token of the input `target` in the same sample with a later time. `seconds` is the index of the time axis. Tokens
    without a time are skipped.

        at       seconds  0    1    1    2           tokens of other samples in the row are never paired
        target   seconds    0.5    1.5  1.7
        pairs             0-0     2-1         3-(-1)
    """
    chunks = [planned.chunks.get(target), planned.chunks[at]]
    slots = [torch.zeros(0, dtype=torch.long) if chunk is None else chunk.slots for chunk in chunks]
    number, slot = torch.cat([torch.arange(len(of_input)) for of_input in slots]), torch.cat(slots)
    is_at = torch.arange(len(slot)) >= len(slots[0])  # targets at the same time come first, as they are not later
    sample, time = planned.tokens.sample.flatten()[slot], planned.tokens.position[..., seconds].flatten()[slot]
    order = torch.from_numpy(np.lexsort([key.numpy() for key in (slot, is_at, time, sample)]))
    order = order[~time[order].isnan()]
    sample, time, is_at, number = (column[order] for column in (sample, time, is_at, number))
    end = len(order)
    after = torch.where(is_at, end, torch.arange(end)).flip(0).cummin(0).values.flip(0)  # the index of the next target
    clamped = after.clamp(max=end - 1)
    following = torch.where((after < end) & (sample[clamped] == sample), number[clamped], -1)
    supervised = is_at.clone()
    supervised[:-1] &= (sample[1:] != sample[:-1]) | (time[1:] != time[:-1])
    return Pairs(number[supervised], following[supervised])


EXAMPLE = Example(
    options={"target": "moves", "at": "wave"},
    inputs={
        "wave": {"use": "sensor", "channels": {"a": "m", "b": "m"}, "rate": 2, "window": 1},
        "moves": {"use": "category", "size": 3, "offset": 0.25},
        "image": {"use": "image", "patch_size": 4, "channels": 1, "size": 8},
    },
    model={"attention": "causal & same_sample"},
)
