"""Which inputs a model reads of every sample, and which of them chance withholds while training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

NOTHING = 0.01
"""The share of the samples that are read without any input where each of theirs may be withheld. They teach only how
the answers are spread, which is what the worth of an input is measured against: few are enough, and none are too few.
"""


def withheld_shares(dropout: Mapping[str, float]) -> dict[str, float]:
    """How often each input is withheld from a sample that has them all, given the chances before one of them is kept.

    {"image": 0.75, "sound": 0.6} gives {"image": 0.530, "sound": 0.381}: in 45 of 100 samples both would be, and
    one stays.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    all_of_them = math.prod(dropout.values()) / len(dropout)
    return {name: NOTHING + (1 - NOTHING) * (share - all_of_them) for name, share in dropout.items()}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How the columns of a data set become the inputs of a set: `Inputs(columns={"camera": "image", "text":
    "text"})`."""

    columns: Mapping[str, str]
    """The data column that each input reads."""
    targets: Collection[str] = ()
    """Inputs that a task predicts: never withheld, never dropped for want of room."""
    encoded: Collection[str] = ()
    """Inputs that an encoder reads, in a set of their own beside the decoder's."""
    labels: Collection[str] = ()
    """Columns that tasks read as they are."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """How often chance withholds each input from a sample while training. Where it would withhold all, one of
    them stays (AV-HuBERT's modality dropout, Shi et al. 2022), except in `NOTHING` of the samples."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a sample that does not fit the context: it is bad, or the last of its inputs are left out."""

    @property
    def optional(self) -> tuple[str, ...]:
        """The inputs that can be withheld from a sample: those that no task predicts."""
        return tuple(name for name in self.columns if name not in self.targets)

    @property
    def withheld(self) -> dict[str, float]:
        """How often each input is withheld from a sample that has them all; only those that are."""
        found = withheld_shares({name: self.dropout.get(name, 0.0) for name in self.optional})
        return {name: share for name, share in found.items() if share}

    def withhold(self, present: Sequence[str], every: Sequence[str], random: np.random.Generator) -> list[str]:
        """Those of a sample's inputs that are withheld from it. `every` input draws its chance, whether
        `present` or not, so that one more input in some samples changes nothing for the others."""
        chances = dict(zip(every, random.random(len(every))))
        shares = [self.dropout.get(name, 0.0) for name in present]
        withheld = [name for name, share in zip(present, shares) if chances[name] < share]
        if present and all(shares):
            if random.random() < NOTHING:
                return list(present)
            if len(withheld) == len(present):
                del withheld[random.integers(len(withheld))]
        return withheld
