"""Mixup and CutMix: mixes pairs of images or sounds and their labels during training, a batch at a time, on the device.
A pair is two neighbours in the global batch. Both are always in the same micro-batch."""

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
    arXiv:1905.04899) are the parameters a of their Beta(a, a), 0 to 1000; 0 switches one off. With both, each is used
    for a pair with probability 1/2.

    Sounds support mixup only: the waveforms of a pair are added, after the second one is cut or padded with silence to
    the length of the first, as in AST (Gong et al. 2021, arXiv:2104.01778). Raises ValueError if a value is out of
    range."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """The probability that a pair is mixed, 0 to 1."""

    def __post_init__(self):
        if not (0 <= self.mixup <= 1000 and 0 <= self.cutmix <= 1000 and 0 <= self.probability <= 1):
            raise ValueError("mixup and cutmix must be at least 0 and at most 1000, probability between 0 and 1")

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with items and labels mixed in pairs: samples 0 and 1, 2 and 3, ... If their number is odd,
        the last one is unchanged. The random draw of a pair uses the seed of its first sample. The targets become
        probabilities of the classes: with share 0.75, labels 0 and 2 of 3 classes become (0.75, 0, 0.25) and
        (0.25, 0, 0.75).

        Raises ValueError unless every sample has one image (all of the same size) or one sound, no other input, and a
        label, and the model has a single task, a classification.
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
        """Returns the random draw of a pair."""
        mixes, cuts = random.random() < self.probability, self.cutmix and (not self.mixup or random.random() < 0.5)
        parameter = self.cutmix if cuts else self.mixup
        share = float(random.beta(parameter, parameter)) if mixes and parameter else 1.0
        return Drawn(share, bool(cuts), *random.random(2).tolist())

    def images(self, images: Tensor, draws: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        """Returns the images (s, channels, height, width) mixed in pairs, and for each of the p pairs in `draws` the
        share of its own pixels that an image keeps, (p)."""
        paired, (height, width) = 2 * len(draws), images.shape[-2:]
        masks = torch.stack([pair.mask(height, width) for pair in draws]) if draws else torch.ones(0, 1, height, width)
        mask = masks.repeat_interleave(2, dim=0).to(images.device)
        originals = images[:paired].float()
        mixed = (originals * mask + swapped(originals) * (1 - mask)).round().to(images.dtype)
        return torch.cat([mixed, images[paired:]]), masks.mean((1, 2, 3))

    def sounds(self, chunks: Chunks, draws: Sequence[Drawn]) -> Tensor:
        """Returns the windows (f, window samples) of all sounds. Each sound is mixed with its partner, which is cut or
        padded with silence to the same number of windows."""
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
    """The random draw of a pair."""

    share: float
    """The weight of the original item and label in the mixture, 0 to 1; 1: not mixed."""
    cuts: bool
    """Whether a rectangle is exchanged (CutMix) instead of mixing all pixels."""
    top: float
    """The vertical center of the rectangle, as a share of the height, 0 to 1."""
    left: float
    """The horizontal center of the rectangle, as a share of the width, 0 to 1."""

    def mask(self, height: int, width: int) -> Float[Tensor, "1 height width"]:
        """Returns the weight of the original pixels: `share` everywhere, or with CutMix 0 inside the rectangle and 1
        outside. The area of the rectangle, before it is clipped to the image, is `1 - share` of the image."""
        if not self.cuts:
            return torch.full((1, height, width), self.share)
        side, mask = (1 - self.share) ** 0.5, torch.ones(1, height, width)
        mask[:, self._extent(self.top, side, height), self._extent(self.left, side, width)] = 0
        return mask

    @staticmethod
    def _extent(middle: float, side: float, length: int) -> slice:
        """Returns the rectangle's extent along an axis of `length` pixels, clipped to the image, as in the paper."""
        half = side * length / 2
        return slice(max(0, round(middle * length - half)), max(0, round(middle * length + half)))


def swapped(items: Tensor) -> Tensor:
    """Exchange neighbours in an even number of items: 0, 1, 2, 3 becomes 1, 0, 3, 2."""
    return items.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
