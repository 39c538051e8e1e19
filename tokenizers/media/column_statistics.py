"""Mean and std of columns of numbers, computed in float64 block by block."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class ColumnStatistics:
    """The sums of the values of c columns. NaN: a value is missing.

    The first value of each column is subtracted before the squares are added. The std of values near 1.7e9 is thus as
    precise as that of values near 0, and the std of a constant column is exactly 0.

        statistics = ColumnStatistics(1)
        statistics.add(torch.tensor([[1e-9], [3e-9]]))
        statistics.mean, statistics.scale(1e-7)    # [2e-9], [1e-9]
    """

    def __init__(self, columns: int):
        self.first = torch.full((columns,), torch.nan, dtype=torch.float64)
        self.count, self.total, self.squares = (torch.zeros(columns, dtype=torch.float64) for _ in range(3))

    def add(self, values: Float[Tensor, "r c"]) -> None:
        """Adds rows of values."""
        is_known = ~values.isnan()
        earliest = values.double()[is_known.int().argmax(0), torch.arange(values.shape[1])] if len(values) else values
        self.first = torch.where(self.first.isnan() & is_known.any(0), earliest, self.first)
        differences = (values.double() - self.first).nan_to_num()
        self.count += is_known.sum(0)
        self.total += differences.sum(0)
        self.squares += differences.square().sum(0)

    @property
    def mean(self) -> Float[Tensor, "c"]:
        """The mean of each column; NaN without values."""
        return self.first + self.total / self.count

    def scale(self, resolution: float) -> Float[Tensor, "c"]:
        """Returns the std of each column. It is 1 if the std is at most `resolution` times the absolute mean, that is,
        if the column is constant up to rounding errors."""
        mean = self.total / self.count
        std = (self.squares / self.count - mean**2).clamp(min=0).sqrt()
        return torch.where(std > resolution * self.mean.abs(), std, 1.0)


def constant_columns(values: Float[Tensor, "r c"]) -> list[int]:
    """Returns the numbers of the columns in which all known values are equal. A column without values is not
    constant."""
    largest, smallest = values.nan_to_num(nan=-torch.inf).amax(0), values.nan_to_num(nan=torch.inf).amin(0)
    return (largest == smallest).nonzero().flatten().tolist()
