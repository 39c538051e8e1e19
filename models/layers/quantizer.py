"""Finite scalar quantisation: a vector of a few numbers is rounded, and each combination of rounded numbers is a
code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class FiniteScalarQuantizer(nn.Module):
    """Maps vectors of len(levels) numbers to prod(levels) codes (Mentzer et al. 2023, arXiv:2309.15505). There is no
    learned codebook, so no entry of a codebook can become unused.

    Number i of a vector is bounded by a tanh and rounded to one of `levels[i]` values. The backward pass treats the
    rounding as the identity. With levels 3 and 3:

        x   -4.0  0.1        bounded and rounded   -1  0        code   0 + 3 * 1 = 3

    An even number of levels has no middle level. Therefore the tanh is shifted (in the paper, too), and 0 is rounded to
    the upper one of the two middle levels. For two levels the upper one is the highest level, where the tanh is flat
    (gradient 0.001). Therefore the tanh is not shifted for two levels, and the result is the sign of the number.

    Raises ValueError if `levels` is empty or has a number below 2, and if prod(levels) is above 2**16.
    """

    def __init__(self, levels: Sequence[int]):
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"levels must be integers of at least 2, not {list(levels)}")
        if math.prod(levels) > 2**16:
            raise ValueError(f"levels {list(levels)} have {math.prod(levels):,} codes; possible: up to {2**16:,}")
        self.codes = math.prod(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        basis = [math.prod(levels[:index]) for index in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis), persistent=False)

    def forward(self, x: Float[Tensor, "t l"]) -> Float[Tensor, "t l"]:
        """Returns the quantised vectors, whose numbers are from -1 to 1."""
        x, half = x.float(), (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = torch.where(self.levels == 2, 0.0, offset / half).atanh()
        bounded = (x + shift).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def ids(self, quantized: Float[Tensor, "t l"]) -> Int[Tensor, "t"]:
        """Returns the code of each quantised vector, an integer from 0 to prod(levels) - 1."""
        digits = (quantized * (self.levels // 2)).round().long() + self.levels // 2
        return (digits * self.basis).sum(-1)

    def vectors(self, ids: Int[Tensor, "t"]) -> Float[Tensor, "t l"]:
        """Returns the quantised vector of each code."""
        digits = ids[:, None] // self.basis % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)
