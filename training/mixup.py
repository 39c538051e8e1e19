"""Mixup and CutMix: pairs of images, or of sounds, mixed while training, and their labels with them, as whole batches
on the device. Pairs are neighbours in the global batch, which no division into micro-batches or processes takes
apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..models.batch import Batch, Chunks
from ..tasks.base import Task
from ..tasks.classification import Classification


@dataclass(frozen=True, kw_only=True)
class Mixup:
    """How inputs and labels are mixed: `mixup` (Zhang et al. 2018, arXiv:1710.09412) and `cutmix` (Yun et al. 2019,
    arXiv:1905.04899) are the parameters of their Beta distributions, 0 for none; with both, a pair takes either.

    Of images both are done. Sounds are added up, the other one cut or followed by silence to the length of each,
    as AST does (Gong et al. 2021, arXiv:2104.01778)."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """How often a pair is mixed at all."""

    def __post_init__(self):
        if not (0 <= self.mixup <= 1000 and 0 <= self.cutmix <= 1000 and 0 <= self.probability <= 1):
            raise ValueError("mixup and cutmix must be at least 0 and at most 1000, probability between 0 and 1")

    def __call__(self, batch: Batch, tasks: Mapping[str, Task]) -> Batch:
        """The batch with its items and labels mixed in pairs of neighbours: the first with the second, the
        third with the fourth; an odd one out stays as it is. What chance decides is keyed by the seed of the
        first of each pair.

        Raises ValueError where it is not one image of one size, or one sound, a sample, or a task whose
        labels cannot be mixed.
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
        classes = {task: each.classes for task, each in tasks.items() if isinstance(each, Classification)}
        if len(tasks) != 1 or len(classes) != 1 or next(iter(tasks.values())).several:
            raise ValueError("training.mixup needs one classification task of one label a sample")
        ((task, known),) = classes.items()
        if batch.targets[task].count < planned.samples:
            raise ValueError("training.mixup needs a label in every sample")
        pairs = planned.samples // 2 * 2
        drawn = [self.drawn(np.random.default_rng([*seed, 8])) for seed in planned.seeds[:pairs:2]]
        labels = F.one_hot(batch.targets[task].values, len(known)).float()
        if sounds:
            values, kept = self.sounds(chunks, drawn), torch.tensor([each.share for each in drawn])
        else:
            values, kept = self.images(chunks.values, drawn)
        kept = kept.repeat_interleave(2).to(labels)[:, None]
        shares = torch.cat([labels[:pairs] * kept + swapped(labels[:pairs]) * (1 - kept), labels[pairs:]])
        targets = replace(batch.targets[task], values=shares)
        mixed = {name: replace(each, values=values) for name, each in planned.chunks.items()}
        return replace(batch, main=replace(planned, chunks=mixed), targets={task: targets})

    def drawn(self, random: np.random.Generator) -> Drawn:
        """What chance decides for a pair."""
        mixes, cuts = random.random() < self.probability, self.cutmix and (not self.mixup or random.random() < 0.5)
        parameter = self.cutmix if cuts else self.mixup
        share = float(random.beta(parameter, parameter)) if mixes and parameter else 1.0
        return Drawn(share, bool(cuts), *random.random(2).tolist())

    def images(self, images: Tensor, drawn: Sequence[Drawn]) -> tuple[Tensor, Tensor]:
        """The images (s, channels, height, width) mixed in pairs, and how much of each pair is its own."""
        pairs, (height, width) = 2 * len(drawn), images.shape[-2:]
        masks = torch.stack([each.own(height, width) for each in drawn]) if drawn else torch.ones(0, 1, height, width)
        own = masks.repeat_interleave(2, dim=0).to(images.device)
        first = images[:pairs].float()
        mixed = (first * own + swapped(first) * (1 - own)).round().to(images.dtype)
        return torch.cat([mixed, images[pairs:]]), masks.mean((1, 2, 3))

    def sounds(self, chunks: Chunks, drawn: Sequence[Drawn]) -> Tensor:
        """The windows (f, samples) of every sound and those of its partner, which is cut or followed by silence."""
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
    """What chance decides for a pair: how much of each is its own, whether a rectangle is exchanged instead of
    the whole being mixed, and where that lies."""

    share: float
    cuts: bool
    top: float
    left: float

    def own(self, height: int, width: int) -> Float[Tensor, "1 height width"]:
        """How much of every pixel is the image's own: the same everywhere, or 0 inside a rectangle and 1 outside."""
        if not self.cuts:
            return torch.full((1, height, width), self.share)
        side, mask = (1 - self.share) ** 0.5, torch.ones(1, height, width)
        rows, columns = (self._part(*each) for each in ((self.top, side, height), (self.left, side, width)))
        mask[:, rows, columns] = 0
        return mask

    @staticmethod
    def _part(middle: float, side: float, length: int) -> slice:
        """A stretch around a place; what would lie outside the image is cut off, as in the paper."""
        half = side * length / 2
        return slice(max(0, round(middle * length - half)), max(0, round(middle * length + half)))


def swapped(items: Tensor) -> Tensor:
    """Every item's partner in its place: of 0, 1, 2, 3 it is 1, 0, 3, 2."""
    return items.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
