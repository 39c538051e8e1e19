"""Mixup and CutMix: during training, pairs of images or sounds are mixed, and so are their labels. All pairs of a
micro-batch are mixed at once, on the device. A pair is two neighbours in the global batch, which are always in the same
micro-batch."""

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
    """Mixes the inputs and labels of pairs of samples with Mixup (Zhang et al. 2018, arXiv:1710.09412) or CutMix (Yun
    et al. 2019, arXiv:1905.04899). The share of an item in its mixture is drawn from a distribution Beta(a, a); `mixup`
    and `cutmix` are the number a for the two methods, 0 to 1000. 0: the method is not used. If both numbers are above
    0, one of the two methods is drawn for each pair, with probability 1/2.

    Sounds only support mixup. The waveforms of a pair are added with weights, after the partner of a sound is cut or
    padded with silence to the length of the sound (AST, Gong et al. 2021, arXiv:2104.01778). Raises ValueError if a
    number is out of range."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """The probability that a pair is mixed, 0 to 1. All other pairs are unchanged."""

    def __post_init__(self):
        if not (0 <= self.mixup <= 1000 and 0 <= self.cutmix <= 1000 and 0 <= self.probability <= 1):
            raise ValueError("mixup and cutmix must be at least 0 and at most 1000, probability between 0 and 1")

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with items and labels mixed in pairs: samples 0 and 1, samples 2 and 3, and so on. If the
        number of samples is odd, the last sample is unchanged. The random draw of a pair uses the seed of the first
        sample of the pair. The targets become probabilities of the classes: with share 0.75, labels 0 and 2 of 3
        classes become (0.75, 0, 0.25) and (0.25, 0, 0.75).

        Raises ValueError in each of these cases: the model has several inputs; a sample has not exactly one item; the
        items are neither images of one size nor sounds; the items are sounds and `cutmix` is above 0; there are several
        tasks; the task is no classification; a sample has no label.
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
            raise ValueError("training.mixup needs a single task, a classification with one label per sample")
        if targets.count < planned.samples:
            raise ValueError("training.mixup needs a label in every sample")
        paired = planned.samples // 2 * 2
        draws = [self.draw(np.random.default_rng([*seed, 8])) for seed in planned.seeds[:paired:2]]
        labels = F.one_hot(targets.values, targets.classes).float()
        if sounds:
            values, share = self.sounds(chunks, draws), torch.tensor([pair.share for pair in draws])
        else:
            values, share = self.images(chunks.values, draws)
        share = share.repeat_interleave(2).to(labels)[:, None]
        probabilities = torch.cat([labels[:paired] * share + swapped(labels[:paired]) * (1 - share), labels[paired:]])
        targets = replace(targets, values=probabilities)
        mixed = dict.fromkeys(planned.chunks, replace(chunks, values=values))
        return replace(batch, main=replace(planned, chunks=mixed), targets={task: targets})

    def draw(self, random: np.random.Generator) -> Drawn:
        """Returns the random draw of a pair from this generator."""
        mixes, cuts = random.random() < self.probability, self.cutmix and (not self.mixup or random.random() < 0.5)
        parameter = self.cutmix if cuts else self.mixup
        share = float(random.beta(parameter, parameter)) if mixes and parameter else 1.0
        return Drawn(share, bool(cuts), *random.random(2).tolist())

    def images(self, images: Tensor, draws: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        """Returns (images, shares): the images (s, channels, height, width), mixed in pairs, and one share per pair in
        `draws`. The share is the mean weight, 0 to 1, of an image's original pixels in the mixed image."""
        paired, (height, width) = 2 * len(draws), images.shape[-2:]
        masks = torch.stack([pair.mask(height, width) for pair in draws]) if draws else torch.ones(0, 1, height, width)
        mask = masks.repeat_interleave(2, dim=0).to(images.device)
        originals = images[:paired].float()
        mixed = (originals * mask + swapped(originals) * (1 - mask)).round().to(images.dtype)
        return torch.cat([mixed, images[paired:]]), masks.mean((1, 2, 3))

    def sounds(self, chunks: Chunks, draws: Sequence[Drawn]) -> Tensor:
        """Returns the mixed windows of all sounds, (f, samples per window) for f windows. Each sound is mixed with its
        partner, which is cut or padded with silence to the number of windows of the sound."""
        values, count, device = chunks.values, len(chunks.counts), chunks.values.device
        frames = chunks.counts * (len(values) // len(chunks.index))
        clip = torch.repeat_interleave(torch.arange(count, device=device), frames, output_size=len(values))
        start = frames.cumsum(0) - frames
        order = torch.arange(count)
        partner = torch.cat([swapped(order[: 2 * len(draws)]), order[2 * len(draws) :]]).to(device)[clip]
        within = torch.arange(len(values), device=device) - start[clip]
        other = values[(start[partner] + within).clamp(max=len(values) - 1)].nan_to_num()
        other = other.masked_fill((within >= frames[partner])[:, None], 0)
        share = torch.tensor([pair.share for pair in draws for _ in range(2)] + [1.0] * (count % 2)).to(values)
        return share[clip, None] * values + (1 - share[clip, None]) * other


class Drawn(NamedTuple):
    """The random numbers for one pair."""

    share: float
    """The weight of an item, and of its label, in the mixture with its partner, 0 to 1; 1: not mixed."""
    cuts: bool
    """Whether the images of the pair exchange a rectangle (CutMix); otherwise all pixels are mixed (mixup)."""
    top: float
    """The vertical center of the rectangle, as a share of the height, 0 to 1."""
    left: float
    """The horizontal center of the rectangle, as a share of the width, 0 to 1."""

    def mask(self, height: int, width: int) -> Float[Tensor, "1 height width"]:
        """Returns the weight of each pixel of the original image. With mixup the weight is `share` everywhere. With
        CutMix it is 0 inside the rectangle and 1 outside. The area of the rectangle is `1 - share` of the area of the
        image, before the rectangle is clipped to the image."""
        if not self.cuts:
            return torch.full((1, height, width), self.share)
        side, mask = (1 - self.share) ** 0.5, torch.ones(1, height, width)
        mask[:, self._extent(self.top, side, height), self._extent(self.left, side, width)] = 0
        return mask

    @staticmethod
    def _extent(middle: float, side: float, length: int) -> slice:
        """Returns the range of pixels of the rectangle along an axis. `middle` (the center) and `side` are shares of
        the `length` of the axis, 0 to 1. The range is clipped to the image, as the paper does."""
        half = side * length / 2
        return slice(max(0, round(middle * length - half)), max(0, round(middle * length + half)))


def swapped(items: Tensor) -> Tensor:
    """Returns the items with neighbours exchanged: 0, 1, 2, 3 becomes 1, 0, 3, 2. The number of items must be even."""
    return items.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
