"""A block with low-rank adapters, LoRA (Hu et al. 2021, arXiv:2106.09685), on its queries and values.

model: {block: {use: block:LowRankBlock, rank: 4}}
training: {train_only: [adapter]}
"""

from dataclasses import dataclass

from chopmix import Block, BlockOptions
from chopmix.models.layers.linear import Linear
from torch import nn


class LowRank(Linear):
    """A linear map plus a product of two small matrices, of which the second starts at zero."""

    def __init__(self, width, channels, bias, rank):
        super().__init__(width, channels, bias=bias)
        self.adapter = nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, channels, bias=False))
        self.adapter[1].weight.role = "zero"
        self.weight.role = self.adapter[0].weight.role = "matrix"  # initial values as without adapters
        if bias:
            self.bias.role = "bias"

    def forward(self, x):
        return super().forward(x) + self.adapter(x)


class LowRankBlock(Block):
    @dataclass(frozen=True, kw_only=True)
    class Options(BlockOptions):  # the keys of `block:`
        rank: int = 8

        def attention(self, width, heads, dropout):
            layer = super().attention(width, heads, dropout)
            for name in ("query", "value"):
                old = getattr(layer, name)
                setattr(layer, name, LowRank(old.in_features, old.out_features, old.bias is not None, self.rank))
            return layer
