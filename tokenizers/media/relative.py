"""Values relative to their item: differences without the level and the scale of the item, so that what a model learns
from warm days holds on cold days (compare RevIN, Kim et al. 2022). The same functions run on the CPU and on a GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST = 1e-6
"""The smallest root mean square by which differences of normalised values are divided. Smaller differences are zero or
rounding errors."""


class Differences(NamedTuple):
    """The differences of the r values of s items in c channels, and their root mean squares. NaN: a value is missing.

    Example, one item with the values 1, 2, 4, 8 and the period 2: `change` is -7, -6, -4, 0, and `season` is NaN, NaN,
    3, 6.
    """

    change: Float[Tensor, "r c"]
    """The differences from the last known value of the item."""
    season: Float[Tensor, "r c"]
    """The differences from the value one period before; NaN in the first period, and without a period."""
    change_scale: Float[Tensor, "s c"]
    season_scale: Float[Tensor, "s c"]


def differences(
    values: Float[Tensor, "r c"], item: Int[Tensor, "r"], index: Int[Tensor, "r"], items: int, period: int | None
) -> Differences:
    """Returns the differences of values. `item` is the number of the item of each value, from 0 and in order, and
    `index` the number of the value in its item."""
    numbers = torch.arange(len(values), device=values.device)[:, None]
    known = torch.where(values.isnan(), -1, numbers)
    latest = known.new_full((items, values.shape[1]), -1)
    latest = latest.scatter_reduce(0, item[:, None].expand_as(known), known, "amax").clamp(min=0)
    change = values - values.gather(0, latest[item]) if len(values) else values
    season = torch.full_like(values, torch.nan)
    if period:
        season = torch.where((index >= period)[:, None], values - values.roll(period, 0), season)
    return Differences(change, season, scale_of(change, item, items), scale_of(season, item, items))


def scale_of(differences: Float[Tensor, "r c"], item: Int[Tensor, "r"], items: int) -> Float[Tensor, "s c"]:
    """Returns the root mean square of the known differences of each item, at least SMALLEST; NaN if none is known."""
    is_known, none = ~differences.isnan(), differences.new_zeros(items, differences.shape[1])
    count = none.index_add(0, item, is_known.to(none.dtype))
    squares = none.index_add(0, item, torch.where(is_known, differences, 0.0).square())
    return torch.where(count > 0, (squares / count.clamp(min=1)).sqrt().clamp(min=SMALLEST), torch.nan)


def relative(
    values: Float[Tensor, "r c"], item: Int[Tensor, "r"], index: Int[Tensor, "r"], items: int, period: int | None
) -> Float[Tensor, "r c"]:
    """Returns values without the level and the scale of their item: the differences from one period before, in the
    first period (and without a period) those from the last value, each divided by their root mean square in the
    item."""
    found = differences(values, item, index, items, period)
    change = found.change / found.change_scale[item]
    return (
        torch.where((index >= period)[:, None], found.season / found.season_scale[item], change) if period else change
    )
