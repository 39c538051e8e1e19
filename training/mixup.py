"""Mixup and CutMix: pairs of images or sounds, and their labels, mixed while training, a batch at a time on the device.
Pairs are neighbours in the global batch; micro-batches and processes never divide a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..models.batch import Batch, Chunks


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """How inputs and labels are mixed: `mixup` (Zhang et al. 2018, arXiv:1710.09412) and `cutmix` (Yun et al. 2019,
    arXiv:1905.04899) are the parameters a of their Beta(a, a), 0 to 1000, 0: none; with both, each pair takes either
    with probability 1/2.

    Images take both. Sounds take mixup alone: to each waveform the other one is added, cut or padded with silence to
    its length, as AST does (Gong et al. 2021, arXiv:2104.01778). Raises ValueError for values out of range."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """The probability that a pair is mixed at all, 0 to 1."""

    def __post_init__(self):
        if not (0 <= self.mixup <= 1000 and 0 <= self.cutmix <= 1000 and 0 <= self.probability <= 1):
            raise ValueError("mixup and cutmix must be at least 0 and at most 1000, probability between 0 and 1")

    def __call__(self, batch: Batch) -> Batch:
        """The batch with items and labels mixed in pairs: samples 0 and 1, 2 and 3, ...; of an odd number the last
        stays as it is. Each pair draws by the seed of its first sample. The targets become shares of the classes:
        with share 0.75, labels 0 and 2 of 3 classes give (0.75, 0, 0.25) and (0.25, 0, 0.75).

        Raises ValueError unless every sample has one image (all of one size) or one sound, no other input, and a label
        of one classification task, the only task.
        """
        planned = batch.main
        chunks = next(iter(planned.chunks.values()))
        images = len(chunks.values) == planned.samples and chunks.values.dim() == 4
        sounds = chunks.counts is not None and len(chunks.counts) == planned.samples
        sounds = sounds and chunks.values.dim() == 2 and chunks.values.is_floating_point() and not self.cutmix
        if len(planned.chunks) != 1 or not (images or sounds):
            raise ValueError(
                "training.mixup needs one image of one size, or one sound (without cutmix), in every sample, "
                "and no other input"
            )
        task, targets = next(iter(batch.targets.items()))
        if len(batch.targets) != 1 or not targets.classes:
            raise ValueError("training.mixup needs one classification task of one label a sample")
        if targets.count < planned.samples:
            raise ValueError("training.mixup needs a label in every sample")
        pairs = planned.samples // 2 * 2
        drawn = [self.drawn(np.random.default_rng([*seed, 8])) for seed in planned.seeds[:pairs:2]]
        labels = F.one_hot(targets.values, targets.classes).float()
        if sounds:
            values, kept = self.sounds(chunks, drawn), torch.tensor([each.share for each in drawn])
        else:
            values, kept = self.images(chunks.values, drawn)
        kept = kept.repeat_interleave(2).to(labels)[:, None]
        shares = torch.cat([labels[:pairs] * kept + swapped(labels[:pairs]) * (1 - kept), labels[pairs:]])
        targets = replace(targets, values=shares)
        mixed = {name: replace(each, values=values) for name, each in planned.chunks.items()}
        return replace(batch, main=replace(planned, chunks=mixed), targets={task: targets})

    def drawn(self, random: np.random.Generator) -> Drawn:
        """The random draw of a pair."""
        mixes, cuts = random.random() < self.probability, self.cutmix and (not self.mixup or random.random() < 0.5)
        parameter = self.cutmix if cuts else self.mixup
        share = float(random.beta(parameter, parameter)) if mixes and parameter else 1.0
        return Drawn(share, bool(cuts), *random.random(2).tolist())

    def images(self, images: Tensor, drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        """The images (s, channels, height, width) mixed in pairs, and each pair's share of an image's own pixels (p),
        for p pairs in `drawn`."""
        pairs, (height, width) = 2 * len(drawn), images.shape[-2:]
        masks = torch.stack([each.own(height, width) for each in drawn]) if drawn else torch.ones(0, 1, height, width)
        own = masks.repeat_interleave(2, dim=0).to(images.device)
        first = images[:pairs].float()
        mixed = (first * own + swapped(first) * (1 - own)).round().to(images.dtype)
        return torch.cat([mixed, images[pairs:]]), masks.mean((1, 2, 3))

    def sounds(self, chunks: Chunks, drawn: Sequence[Drawn]) -> Tensor:
        """The windows (f, window samples) of all sounds, each mixed with those of its partner, which is cut or padded
        with silence to the same number of windows."""
        values, count, device = chunks.values, len(chunks.counts), chunks.values.device
        frames = chunks.counts * (len(values) // len(chunks.index))
        clip = torch.repeat_interleave(torch.arange(count, device=device), frames, output_size=len(values))
        start = frames.cumsum(0) - frames
        order = torch.arange(count)
        partner = torch.cat([swapped(order[: 2 * len(drawn)]), order[2 * len(drawn) :]]).to(device)[clip]
        within = torch.arange(len(values), device=device) - start[clip]
        other = values[(start[partner] + within).clamp(max=len(values) - 1)].nan_to_num()
        other = other.masked_fill((within >= frames[partner])[:, None], 0)
        share = torch.tensor([each.share for each in drawn for _ in range(2)] + [1.0] * (count % 2)).to(values)
        return share[clip, None] * values + (1 - share[clip, None]) * other


class Drawn(NamedTuple):
    """The random draw of a pair."""

    share: float
    """How much of each item and label is its own, 0 to 1; 1: not mixed."""
    cuts: bool
    """Whether a rectangle is exchanged (CutMix) instead of all pixels being mixed."""
    top: float
    """The middle of the rectangle, as a share of the height, 0 to 1."""
    left: float
    """The same of the width."""

    def own(self, height: int, width: int) -> Float[Tensor, "1 height width"]:
        """How much of every pixel is the image's own: `share` everywhere, or 0 inside the rectangle (`1 - share` of the
        area, before it is clipped to the image) and 1 outside."""
        if not self.cuts:
            return torch.full((1, height, width), self.share)
        side, mask = (1 - self.share) ** 0.5, torch.ones(1, height, width)
        rows, columns = (self._part(*each) for each in ((self.top, side, height), (self.left, side, width)))
        mask[:, rows, columns] = 0
        return mask

    @staticmethod
    def _part(middle: float, side: float, length: int) -> slice:
        """The side of the rectangle along one axis of `length` pixels, clipped to the image, as in the paper."""
        half = side * length / 2
        return slice(max(0, round(middle * length - half)), max(0, round(middle * length + half)))


def swapped(items: Tensor) -> Tensor:
    """An even number of items, neighbours exchanged: 0, 1, 2, 3 become 1, 0, 3, 2."""
    return items.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
