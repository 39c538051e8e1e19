"""Losses and metrics of predicted numbers. Targets that are NaN are missing, and are ignored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..base import Metric, per_target


def check_loss(kind: str) -> None:
    """Raises ValueError unless `kind` is `squared` or `huber`."""
    if kind not in ("squared", "huber"):
        raise ValueError(f"loss must be 'squared' or 'huber', not {kind!r}")


def loss_of(kind: str, output: Float[Tensor, "s v"], targets: Float[Tensor, "s v"]) -> Float[Tensor, ""]:
    """Returns the loss of predicted numbers, `squared` or `huber`, summed over all targets that are not missing."""
    is_present = ~targets.isnan()
    loss = F.huber_loss if kind == "huber" else F.mse_loss
    return (loss(output.float(), torch.where(is_present, targets, 0.0), reduction="none") * is_present).sum()


def errors(difference: Float[Tensor, "s v"]) -> dict[str, Tensor]:
    """Returns three sums over the samples for each number (v): `absolute` (absolute errors), `squares` (squared
    errors), and `known` (the count of targets that are not missing). `difference` is prediction minus target."""
    is_present = ~difference.isnan()
    error = torch.where(is_present, difference, 0.0)
    return {"absolute": error.abs().sum(0), "squares": error.square().sum(0), "known": is_present.sum(0)}


def metrics_of_numbers(kind: str, endings: Sequence[str]) -> dict[str, Metric]:
    """Returns the metrics of predicted numbers: `loss`, and for each number `mae` and `rmse`, followed by its suffix in
    `endings`. `kind` is the loss, `squared` or `huber`."""
    loss = Metric("squared stds" if kind == "squared" else "Huber, in stds", of_sums=per_target)
    error_functions = {"mae": mean_absolute, "rmse": root_mean_square}
    return {"loss": loss} | {
        f"{name}{end}": Metric("of the target", of_sums=partial(error, number=number))
        for number, end in enumerate(endings)
        for name, error in error_functions.items()
    }


def known_count(sums: Mapping[str, Tensor], number: int) -> float:
    """Returns the number of samples in which the number with index `number` is not missing."""
    return float(sums["known"][number])


def mean_absolute(sums: Mapping[str, Tensor], number: int) -> float:
    """Returns the mean absolute error of the number with index `number`."""
    return float(sums["absolute"][number] / sums["known"][number].clamp(min=1))


def root_mean_square(sums: Mapping[str, Tensor], number: int) -> float:
    """Returns the root mean square error of the number with index `number`."""
    return float((sums["squares"][number] / sums["known"][number].clamp(min=1)).sqrt())
