"""Mixup and CutMix: pairs of images mixed while training, and their labels with them. A batch at a time, on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..models.batch import Batch
from ..tasks.classification import Classification
from ..tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How images and labels are mixed, by timm's `Mixup`: `mixup` (Zhang et al. 2018, arXiv:1710.09412) and `cutmix` (Yun et
    al. 2019, arXiv:1905.04899) are the parameters of their Beta distributions, 0 for none; with both, a batch takes either."""

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    """How often a batch is mixed at all."""

    def __post_init__(self):
        if min(self.mixup, self.cutmix) < 0 or not 0 <= self.probability <= 1:
            raise ValueError("mixup and cutmix must be at least 0, probability between 0 and 1")

    def __call__(self, batch: Batch, tasks: Mapping[str, Task]) -> Batch:
        """The batch with its images and labels mixed. What chance decides follows torch's seed.

        Raises ValueError where it is not one image of one size a sample, or a task whose labels cannot be mixed.
        """
        from timm.data import Mixup

        planned = batch.sets["main"]
        if len(planned.pieces) != 1 or len(next(iter(planned.pieces.values())).values) != planned.samples:
            raise ValueError("training.mix needs one image of one size in every sample, and no other input")
        ((name, pieces),) = planned.pieces.items()
        count = len(pieces.values) // 2 * 2  # in pairs; an odd one out stays as it is
        np.random.seed(torch.initial_seed() % 2**32)
        classes = {task: each.classes for task, each in tasks.items() if isinstance(each, Classification)}
        if len(tasks) != 1 or len(classes) != 1 or next(iter(tasks.values())).several:
            raise ValueError("training.mix needs one classification task of one label a sample")
        ((task, known),) = classes.items()
        mixed = Mixup(self.mixup, self.cutmix, prob=self.probability, num_classes=len(known), label_smoothing=0.0)
        images, shares = mixed(pieces.values[:count].float(), batch.targets[task].values[:count])
        rest = torch.nn.functional.one_hot(batch.targets[task].values[count:], len(known)).to(shares)
        images = torch.cat([images.round().to(pieces.values.dtype), pieces.values[count:]])
        targets = replace(batch.targets[task], values=torch.cat([shares, rest]))
        pieces = {name: replace(pieces, values=images)}
        return replace(batch, sets={"main": replace(planned, pieces=pieces)}, targets={task: targets})
