"""Finite scalar quantisation: a few numbers, each rounded to one of a few values, form a code."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class FiniteScalarQuantizer(nn.Module):
    """Maps vectors of len(levels) numbers to the nearest of prod(levels) codes (Mentzer et al. 2023, arXiv:2309.15505).
    There is no learned codebook, so no entry of it can become unused.

    Each number is bounded by a tanh and rounded to one of `levels` values; the backward pass treats rounding as the
    identity. With levels 3 and 3:

        x   -4.0  0.1        bounded and rounded   -1  0        code   0 + 3 * 1 = 3

    An even number of levels has no middle level. As in the paper, the tanh is shifted so that 0 is rounded to the upper
    of the two middle levels. With two levels this is the highest level, where the tanh is flat (gradient 0.001);
    therefore two levels are not shifted and are the signs.

    Raises ValueError for a number of levels below 2, and for more than 2**16 codes.
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
        """Returns the quantised vectors; each number is from -1 to 1."""
        x, half = x.float(), (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = torch.where(self.levels == 2, 0.0, offset / half).atanh()
        bounded = (x + shift).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        return rounded / (self.levels // 2)

    def ids(self, quantized: Float[Tensor, "t l"]) -> Int[Tensor, "t"]:
        """Returns the codes of quantised vectors, from 0 to prod(levels) - 1."""
        digits = (quantized * (self.levels // 2)).round().long() + self.levels // 2
        return (digits * self.basis).sum(-1)

    def vectors(self, ids: Int[Tensor, "t"]) -> Float[Tensor, "t l"]:
        """Returns the quantised vectors of codes."""
        digits = ids[:, None] // self.basis % self.levels
        return (digits - self.levels // 2) / (self.levels // 2)
