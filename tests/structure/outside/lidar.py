"""A tokenizer: the ranges of a laser scanner, some to a token, and a data set that has them.

inputs: {scan: {use: lidar:LidarTokenizer, ranges_per_token: 4}}
data: {dataset: lidar:Scans}
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from chopmix import Chopper, Chunk, Listed, SampleDataset
from torch import nn


@dataclass(frozen=True, kw_only=True)
class LidarChopper(Chopper):
    axes: ClassVar = ("angle",)  # positions that rotary and the attention graph may use
    ranges_per_token: int = 8

    def chop(self, item):  # a raw scan to one row of values per token
        rows = torch.as_tensor(item).reshape(-1, self.ranges_per_token)
        return Chunk(rows, len(rows), torch.arange(len(rows)).float()[:, None])


class LidarTokenizer(nn.Module):
    Chopper = LidarChopper

    def __init__(self, chopper, width, context):
        super().__init__()
        self.embedding = nn.Linear(chopper.ranges_per_token, width)

    def forward(self, chunks):
        return self.embedding(chunks.values)


class Scans(SampleDataset):
    """Scans of 32 ranges with an obstacle at one of 8 directions, and the word for it."""

    columns = ("scan", "word")

    def open(self, split):
        random, rows = np.random.default_rng(self.splits.index(split)), []
        for _ in range(64):
            scan, direction = random.normal(3, 0.1, 32).astype(np.float32), int(random.integers(8))
            scan[4 * direction : 4 * direction + 4] -= 2
            rows.append(
                {"scan": scan, "word": ["north", "east", "south", "west", "up", "down", "left", "right"][direction]}
            )
        return Listed([f"{split} {number}" for number in range(64)], rows)
