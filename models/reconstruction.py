"""The head of an autoencoder. It quantises vectors to codes and reconstructs the content of the tokens from the
codes."""

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
"""The largest number that can be quantised. Its tanh, 0.96, is rounded to the highest level."""


class ReconstructionHead(Head):
    """Maps the vector of each token to a code with these `levels` (`FiniteScalarQuantizer`). A second transformer, the
    decoder, maps all codes of an item to `size` numbers per token. `length` is the number of tokens per item.

    The numbers to quantise are the cosines between the vector and learned directions, times `REACH`. Unbounded numbers
    would grow until only the lowest and the highest level are used, and there the gradient of the tanh vanishes."""

    quantizes, inner_inputs = True, ("down", "up")

    def __init__(self, width: int, size: int, length: int, *, levels: Sequence[int], depth: int, heads: int):
        super().__init__()
        self.length = length
        self.down, self.quantizer = Linear(width, len(levels), bias=False), FiniteScalarQuantizer(levels)
        self.up, self.position = Linear(len(levels), width), nn.Embedding(length, width)
        self.decoder = Transformer(width=width, depth=depth, heads=heads, attention="same_sample")
        self.out = Linear(width, size)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t k"]:
        """Returns one row per token, (t, size + l): the decoded numbers of the token, then its quantised vector."""
        quantized = self.quantizer(self.cosines(x))
        return torch.cat([self.decode(quantized), quantized], dim=1)

    def codes(self, x: Float[Tensor, "t d"]) -> Int[Tensor, "t"]:
        """Returns the code (an integer) of each token."""
        return self.quantizer.ids(self.quantizer(self.cosines(x)))

    def cosines(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t l"]:
        """Returns the l numbers of each token that are quantised, from -`REACH` to `REACH`."""
        return REACH * F.linear(F.normalize(x.float()), F.normalize(self.down.weight))

    def decoded(self, codes: Int[Tensor, "t"]) -> Float[Tensor, "t p"]:
        """Returns the decoded numbers of each token. `codes` holds items of `length` codes each, one item after
        another."""
        return self.decode(self.quantizer.vectors(codes))

    def decode(self, quantized: Float[Tensor, "t l"]) -> Float[Tensor, "t p"]:
        """Returns the decoded numbers of each token. `quantized` holds items of `length` vectors each, one after
        another."""
        tokens = rearrange(self.up(quantized), "(s n) d -> s n d", n=self.length) + self.position.weight
        return self.out(rearrange(self.decoder(tokens), "s n d -> (s n) d"))
