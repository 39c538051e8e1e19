"""Random changes of a stream of measurements during training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StreamAugmentation:
    """Random changes of a stream of measurements (Um et al. 2017, arXiv:1706.00527). All are shares from 0 to 1, and 0
    by default (no change). `shift`: the stream is moved in time by up to this share of its length; the first or last
    measurement fills the gap. `warp`: it is up to this share faster or slower. `scale`: each channel is multiplied by a
    factor with mean 1 and this std, around its mean. `jitter`: noise is added, whose std is this share of the std of
    the channel in the stream. `mask_time`: a span of up to this share of the stream is missing. `mask_channels`: each
    channel is missing with this probability, but not all of them. The times of the measurements and channels of
    categories are not scaled and have no noise."""

    shift: float = 0.0
    warp: float = 0.0
    scale: float = 0.0
    jitter: float = 0.0
    mask_time: float = 0.0
    mask_channels: float = 0.0

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"augment: {name} must be at least 0 and below 1, not {value}")

    def __call__(
        self, values: Float[Tensor, "t c"], numbers: list[int], random: np.random.Generator
    ) -> Float[Tensor, "t c"]:
        """Returns the changed measurements. `numbers` are the columns that are no categories."""
        values = self.moved(values, numbers, random) if self.shift or self.warp else values.clone()
        columns = values[:, numbers]
        if self.scale:
            mean = columns.nanmean(0)
            factors = 1 + self.scale * random.standard_normal(len(numbers), dtype=np.float32)
            columns = (columns - mean) * torch.from_numpy(factors) + mean
        if self.jitter:
            centred = (columns - columns.nanmean(0)).nan_to_num()
            noise = torch.from_numpy(random.standard_normal(tuple(columns.shape), dtype=np.float32))
            columns = columns + self.jitter * centred.square().mean(0).sqrt() * noise
        values[:, numbers] = columns
        if self.mask_time:
            length = int(random.uniform(0, self.mask_time) * len(values))
            first = int(random.integers(len(values) - length + 1))
            values[first : first + length] = torch.nan
        if self.mask_channels:
            is_masked = random.random(values.shape[1]) < self.mask_channels
            is_masked[random.integers(values.shape[1])] = False
            values[:, torch.from_numpy(is_masked)] = torch.nan
        return values

    def moved(
        self, values: Float[Tensor, "t c"], numbers: list[int], random: np.random.Generator
    ) -> Float[Tensor, "t c"]:
        """Returns measurements that are shifted and warped in time, interpolated linearly; categories are those of the
        nearest measurement. If one of two neighbours is missing, the other one is taken."""
        last = len(values) - 1
        speed, shift = 1 + random.uniform(-self.warp, self.warp), random.uniform(-self.shift, self.shift) * len(values)
        places = ((torch.arange(len(values)) - last / 2) * speed + last / 2 + shift).clamp(0, last)
        low, part = places.floor().long(), places.frac()[:, None]
        before, after = values[low], values[(low + 1).clamp(max=last)]
        moved = values[places.round().long()]
        between = before * (1 - part) + after * part
        between = torch.where(before.isnan(), after, torch.where(after.isnan(), before, between))
        moved[:, numbers] = between[:, numbers]
        return moved
