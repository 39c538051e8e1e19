"""The head of an autoencoder: vectors through a narrow gate of codes, and back to what the tokens hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from .batch import Targets
from .heads import Head
from .layers.linear import Linear
from .layers.quantizer import FiniteScalarQuantizer
from .transformer import Transformer

REACH = 2.0
"""The largest number that is quantised: its tanh, 0.96, is rounded to the last of its levels."""


class ReconstructionHead(Head):
    """Each token's vector to a code of `levels`, and the codes of an item, by a transformer of their own that reads all
    of them, to `size` numbers a token. `length`: the tokens of every item.

    What is quantised are the cosines between the vector and learned directions, times `REACH`: numbers without a bound
    grow until only the first and the last of their levels are used, where a tanh has no gradient that leads back."""

    quantizes, inner_inputs = True, ("down", "up")

    def __init__(self, width: int, size: int, length: int, *, levels: Sequence[int], depth: int, heads: int):
        super().__init__()
        self.length = length
        self.down, self.quantizer = Linear(width, len(levels), bias=False), FiniteScalarQuantizer(levels)
        self.up, self.position = Linear(len(levels), width), nn.Embedding(length, width)
        self.decoder = Transformer(width=width, depth=depth, heads=heads, attention="same_sample")
        self.out = Linear(width, size)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t k"]:
        """The decoded numbers of each token, and behind them its quantised vector."""
        quantized = self.quantizer(self.cosines(x))
        return torch.cat([self.decode(quantized), quantized], dim=1)

    def codes(self, x: Float[Tensor, "t d"]) -> Int[Tensor, "t"]:
        """The codes of the tokens."""
        return self.quantizer.ids(self.quantizer(self.cosines(x)))

    def cosines(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t l"]:
        """What is quantised, from -`REACH` to `REACH`."""
        return REACH * F.linear(F.normalize(x.float()), F.normalize(self.down.weight))

    def decoded(self, codes: Int[Tensor, "t"]) -> Float[Tensor, "t p"]:
        """The numbers of each token, from the codes of whole items."""
        return self.decode(self.quantizer.vectors(codes))

    def decode(self, quantized: Float[Tensor, "t l"]) -> Float[Tensor, "t p"]:
        """The numbers of each token, from the quantised vectors of whole items."""
        tokens = rearrange(self.up(quantized), "(s n) d -> s n d", n=self.length) + self.position.weight
        return self.out(rearrange(self.decoder(tokens), "s n d -> (s n) d"))
