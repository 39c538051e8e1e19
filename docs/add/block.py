"""A block whose attention is multiplied by a gate, a function of the token itself (Qiu et al. 2025, arXiv:2505.06708).

model: {block: {use: block:GatedBlock, open: 0.9}}
"""

import math
from dataclasses import dataclass

import torch
from chopmix import Block, BlockOptions
from torch import nn


class GatedBlock(Block):
    @dataclass(frozen=True, kw_only=True)
    class Options(BlockOptions):  # the keys of `block:`
        open: float = 0.9  # the initial value of the gates, from 0 to 1

    def __init__(self, width, *arguments, options, **others):
        super().__init__(width, *arguments, options=options, **others)
        self.gate = nn.Linear(width, width)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, math.log(options.open / (1 - options.open)))

    def gated(self, x, context):
        return torch.sigmoid(self.gate(x)) * self.attention(x, context)

    def forward(self, x, context, source=None, source_context=None):
        x = self.add_attention(x, self.gated, context)  # x + gated(norm(x))
        if self.cross_attention is not None:
            x = self.add_cross_attention(x, self.cross_attention, source_context, source)
        return self.add_feed_forward(x, self.feed, context)
