"""Losses and metrics of predicted numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..base import Metric, per_target


def check_loss(kind: str) -> None:
    """Raises ValueError for a `loss` of numbers that there is not."""
    if kind not in ("squared", "huber"):
        raise ValueError(f"loss must be 'squared' or 'huber', not {kind!r}")


def loss_of(kind: str, output: Float[Tensor, "s v"], wanted: Float[Tensor, "s v"]) -> Float[Tensor, ""]:
    """The summed loss of predicted numbers, `squared` or `huber`; those that are NaN in `wanted` are left out."""
    known = ~wanted.isnan()
    each = F.huber_loss if kind == "huber" else F.mse_loss
    return (each(output.float(), torch.where(known, wanted, 0.0), reduction="none") * known).sum()


def errors(difference: Float[Tensor, "s v"]) -> dict[str, Tensor]:
    """Of each number, (v): the summed `absolute` errors, their `squares`, and how many are `known`, not NaN."""
    known = ~difference.isnan()
    error = torch.where(known, difference, 0.0)
    return {"absolute": error.abs().sum(0), "squares": error.square().sum(0), "known": known.sum(0)}


def metrics_of_numbers(kind: str, endings: Sequence[str]) -> dict[str, Metric]:
    """The metrics of predicted numbers: `loss`, of this kind, and of each number `mae` and `rmse` with its ending."""
    loss = Metric("squared stds" if kind == "squared" else "Huber, in stds", of_sums=per_target)
    each = {"mae": mean_absolute, "rmse": root_mean_square}
    return {"loss": loss} | {
        f"{name}{end}": Metric("of the target", of_sums=partial(error, number=number))
        for number, end in enumerate(endings)
        for name, error in each.items()
    }


def known(sums: Mapping[str, Tensor], number: int) -> float:
    """How many targets have the number of index `number`."""
    return float(sums["known"][number])


def mean_absolute(sums: Mapping[str, Tensor], number: int) -> float:
    """The mean absolute error of the number of index `number`."""
    return float(sums["absolute"][number] / sums["known"][number].clamp(min=1))


def root_mean_square(sums: Mapping[str, Tensor], number: int) -> float:
    """The root mean square error of the number of index `number`."""
    return float((sums["squares"][number] / sums["known"][number].clamp(min=1)).sqrt())
