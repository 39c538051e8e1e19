"""A mixture of experts as the feed-forward layer (Shazeer et al. 2017, arXiv:1701.06538): a router sends each token
through one of several layers. A loss term makes the layers receive similar numbers of tokens (Fedus et al. 2021,
arXiv:2101.03961).

model: {block: {feed_forward: {use: experts:Experts, count: 4}}}
"""

import torch
from chopmix import FeedForward
from chopmix.models.layers.feed_forward import Gelu
from chopmix.models.layers.linear import Linear
from torch import nn


class Experts(FeedForward):
    reads_context = True  # `forward` also receives the tokens, and a list for loss terms

    def __init__(self, width: int, bias: bool = True, *, count: int = 4, balance: float = 0.01):
        super().__init__()
        self.router = Linear(width, count, bias=False)
        self.experts = nn.ModuleList(Gelu(width, bias) for _ in range(count))
        self.balance = balance

    def forward(self, x, context):
        is_token = (context.tokens.sample != 0).expand(x.shape[:2]).flatten()  # 0: padding
        flat = x.flatten(0, 1)
        chances = self.router(flat).softmax(-1)
        chosen = chances.argmax(-1).masked_fill(~is_token, -1)
        output = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            slots = (chosen == number).nonzero()[:, 0]
            weighted = expert(flat[slots]) * chances[slots, number, None]
            output = output.index_add(0, slots, weighted.to(output.dtype))
        if context.losses is not None:  # in training
            shares = torch.stack([(chosen == number).sum() for number in range(len(self.experts))]) / is_token.sum()
            imbalance = len(self.experts) * (chances[is_token] * shares).sum()  # a sum over the tokens
            context.losses.append(self.balance * imbalance)
        return output.view_as(x)
