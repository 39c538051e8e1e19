"""Mixup and CutMix: pairs of images, or of sounds, mixed while training, and their labels with them. A batch at a time, on the
device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.batch import Batch, Pieces
from ..tasks.classification import Classification
from ..tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How inputs and labels are mixed: `mixup` (Zhang et al. 2018, arXiv:1710.09412) and `cutmix` (Yun et al. 2019,
    arXiv:1905.04899) are the parameters of their Beta distributions, 0 for none; with both, a batch takes either.

    Images of one size go through timm's `Mixup`. Sounds are added up, the other one cut or followed by silence to the length of
    each, as AST does (Gong et al. 2021, arXiv:2104.01778)."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """How often a batch is mixed at all."""

    def __post_init__(self):
        if min(self.mixup, self.cutmix) < 0 or not 0 <= self.probability <= 1:
            raise ValueError("mixup and cutmix must be at least 0, probability between 0 and 1")

    def __call__(self, batch: Batch, tasks: Mapping[str, Task]) -> Batch:
        """The batch with its images and labels mixed. What chance decides follows torch's seed.

        Raises ValueError where it is not one image of one size, or one sound, a sample, or a task whose labels cannot be mixed.
        """
        planned = batch.sets["main"]
        pieces = next(iter(planned.pieces.values()))
        images, sounds = len(pieces.values) == planned.samples, len(pieces.counts) == planned.samples
        sounds = sounds and pieces.values.dim() == 2 and pieces.values.is_floating_point() and not self.cutmix
        if len(planned.pieces) != 1 or not (images or (sounds and len(pieces.values) % sum(pieces.counts) == 0)):
            raise ValueError(
                "training.mix needs one image of one size, or one sound (without cutmix), in every sample, and no other input"
            )
        classes = {task: each.classes for task, each in tasks.items() if isinstance(each, Classification)}
        if len(tasks) != 1 or len(classes) != 1 or next(iter(tasks.values())).several:
            raise ValueError("training.mix needs one classification task of one label a sample")
        ((task, known),) = classes.items()
        if batch.targets[task].count < planned.samples:
            raise ValueError("training.mix needs a label in every sample")
        np.random.seed(torch.initial_seed() % 2**32)
        mixed = self.sounds if sounds else self.images
        values, shares = mixed(pieces, batch.targets[task].values, len(known))
        targets = replace(batch.targets[task], values=shares)
        pieces = {name: replace(each, values=values) for name, each in planned.pieces.items()}
        return replace(batch, sets={"main": replace(planned, pieces=pieces)}, targets={task: targets})

    def images(self, pieces: Pieces, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The images (s, ...) and the shares (s, classes) of their labels, mixed in pairs; an odd one out stays as it is."""
        from timm.data import Mixup

        count = len(pieces.values) // 2 * 2
        mixed = Mixup(self.mixup, self.cutmix, prob=self.probability, num_classes=classes, label_smoothing=0.0)
        images, shares = mixed(pieces.values[:count].float(), labels[:count])
        rest = F.one_hot(labels[count:], classes).to(shares)
        images = torch.cat([images.round().to(pieces.values.dtype), pieces.values[count:]])
        return images, torch.cat([shares, rest])

    def sounds(self, pieces: Pieces, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The windows (f, samples) of every sound and those of its partner, the first's with the last's and so on."""
        own = F.one_hot(labels, classes).float()
        if not self.mixup or np.random.rand() >= self.probability:
            return pieces.values, own
        share = float(np.random.beta(self.mixup, self.mixup))
        per_token = len(pieces.values) // sum(pieces.counts)
        clips = pieces.values.split([count * per_token for count in pieces.counts])
        parts = []
        for clip, other in zip(clips, reversed(clips)):
            other = F.pad(other[: len(clip)].nan_to_num(), (0, 0, 0, max(0, len(clip) - len(other))))
            parts.append(share * clip + (1 - share) * other)
        return torch.cat(parts), share * own + (1 - share) * own.flip(0)
