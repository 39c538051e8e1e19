"""A modality: the ranges of a laser scanner, `ranges_per_token` to a token.

inputs: {scan: {use: modality:LidarTokenizer, ranges_per_token: 4}}
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from chopmix import Chopper, Chunk
from torch import nn


@dataclass(frozen=True, kw_only=True)
class LidarChopper(Chopper):
    """Without parameters: from a raw scan, n numbers, to tokens."""

    axes: ClassVar = ("angle",)  # positions that rotary and the attention graph may use
    ranges_per_token: int = 8

    def chop(self, item):
        rows = torch.as_tensor(item).reshape(-1, self.ranges_per_token)  # one row of values per token
        return Chunk(rows, len(rows), torch.arange(len(rows)).float()[:, None])


class LidarTokenizer(nn.Module):
    """With parameters: from the rows of all tokens of a batch, (t, ranges_per_token), to vectors, (t, width)."""

    Chopper = LidarChopper

    def __init__(self, chopper, width, context):
        super().__init__()
        self.embedding = nn.Linear(chopper.ranges_per_token, width)

    def forward(self, chunks):
        return self.embedding(chunks.values)
