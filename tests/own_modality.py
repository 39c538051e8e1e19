"""A modality that a user defines outside the package (a ring of distances), and a data set with it."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from chopmix import Chopper, Chunk, Listed, SampleDataset
from einops import rearrange
from torch import nn


@dataclass(frozen=True, kw_only=True)
class LidarChopper(Chopper):
    axes: ClassVar = ("angle",)  # positions that rotary and the graph may use
    ranges_per_token: int = 8

    def chop(self, item):  # one raw scan -> one row of values per token
        slices = rearrange(torch.as_tensor(item), "(t r) -> t r", r=self.ranges_per_token)
        return Chunk(slices, len(slices), torch.arange(len(slices)).float()[:, None])


class LidarTokenizer(nn.Module):
    Chopper = LidarChopper

    def __init__(self, chopper, width, context):
        super().__init__()
        self.embedding = nn.Linear(chopper.ranges_per_token, width)

    def forward(self, chunks):
        return self.embedding(chunks.values)


class FlaggedTokenizer(LidarTokenizer):
    """An embedder with an option that has the name of a part of other embedders."""

    def __init__(self, chopper, width, context, *, position: bool = True):
        super().__init__(chopper, width, context)


class Rooms(SampleDataset):
    """Scans with a gap, and a word for the side of the gap."""

    columns = ("scan", "side")

    def open(self, split):
        random = np.random.default_rng(self.splits.index(split))
        rows = []
        for _ in range(64):
            scan, side = random.normal(1, 0.1, 32).astype(np.float32), int(random.integers(2))
            scan[side * 16 : side * 16 + 16] += 3
            rows.append({"scan": scan, "side": ("left", "right")[side]})
        return Listed([f"{split} {n}" for n in range(64)], rows)
