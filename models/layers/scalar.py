"""One number for each item, such as the time of a flow, as a vector that is added to the tokens of the item."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..batch import Chunks
from .linear import Linear

FREQUENCIES = 16
"""The number of frequencies, from 1 to 100 periods between the numbers 0 and 1."""


class ScalarEmbedding(nn.Module):
    """Maps the number of each item (`Chunks.scalars`, about 0 to 1) to a vector for each of its tokens: the sine and
    cosine of several frequencies, then a perceptron with one hidden layer (as in DiT, Peebles & Xie 2023,
    arXiv:2212.09748)."""

    def __init__(self, width: int):
        super().__init__()
        frequency = 2 * math.pi * 100.0 ** torch.linspace(0, 1, FREQUENCIES)
        self.register_buffer("frequency", frequency, persistent=False)
        self.up, self.down = Linear(2 * FREQUENCIES, width), Linear(width, width)

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        scalars = chunks.index.new_ones((), dtype=self.frequency.dtype)
        scalars = scalars.expand(len(chunks.index)) if chunks.scalars is None else chunks.scalars[chunks.owners]
        angle = scalars[:, None] * self.frequency
        return self.down(nn.functional.silu(self.up(torch.cat([angle.sin(), angle.cos()], dim=1))))
