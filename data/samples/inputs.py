"""Which inputs a model reads of every sample, and input dropout: which of them are withheld at random in training."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

NOTHING = 0.01
"""The share of samples that are read without any input, where each of theirs may be withheld. They teach only the
distribution of the answers, the baseline that attribution measures an input against: few are enough, none too few."""


def withheld_shares(dropout: Mapping[str, float], one_stays: bool = True) -> dict[str, float]:
    """The probability that each input is withheld from a sample that has them all, from the rates at which each is
    drawn; with `one_stays`, before one is put back where all were.

    {"image": 0.75, "sound": 0.6} gives {"image": 0.530, "sound": 0.381}: in 45 of 100 samples both would be, and
    one stays.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    all_of_them = math.prod(dropout.values()) / len(dropout) if one_stays else 0.0
    return {name: NOTHING + (1 - NOTHING) * (share - all_of_them) for name, share in dropout.items()}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How the columns of a data set become the inputs of a model: `Inputs(columns={"camera": "image", "text": "text"})`
    reads the input `camera` off the column `image`."""

    columns: Mapping[str, str]
    """The data column that each input reads, by input."""
    targets: Collection[str] = ()
    """Inputs that a task predicts: never withheld, never dropped for want of room."""
    encoded: Collection[str] = ()
    """Inputs that an encoder reads, in a set of their own beside the decoder's."""
    labels: Collection[str] = ()
    """Columns that tasks read undecoded, such as a class."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """The rate, from 0 to below 1, at which each input is withheld from a sample while training. Where all would be,
    one stays (AV-HuBERT's modality dropout, Shi et al. 2022), except in the share `NOTHING` of the samples. The only
    one beside what a task predicts may be withheld: guidance needs a model that has read much without it."""
    any_number: bool = False
    """In place of `dropout`: of each sample any number of its inputs is withheld while training, each number equally
    often; one stays, as there. The model then knows every subset about as well as any other, which is what the mean
    over all orders in which inputs may be added (Shapley 1953) asks it about (Covert et al. 2023, arXiv:2206.05282)."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """A sample longer than the context is bad (`refuse`), or its last inputs are left out until it fits (`drop`)."""

    @property
    def optional(self) -> tuple[str, ...]:
        """The inputs that may be withheld from a sample: those that no task predicts."""
        return tuple(name for name in self.columns if name not in self.targets)

    @property
    def one_stays(self) -> bool:
        """Whether one of several inputs is put back where all would be withheld."""
        return len(self.optional) > 1 or not self.targets

    @property
    def withheld(self) -> dict[str, float]:
        """The probability that each input is withheld from a sample that has them all, where it is not 0."""
        if self.any_number and self.optional:
            share = (len(self.optional) - self.one_stays) / 2 / len(self.optional)
            return dict.fromkeys(self.optional, NOTHING + (1 - NOTHING) * share)
        found = withheld_shares({name: self.dropout.get(name, 0.0) for name in self.optional}, self.one_stays)
        return {name: share for name, share in found.items() if share}

    def withhold(self, present: Sequence[str], every: Sequence[str], random: np.random.Generator) -> list[str]:
        """Draw which of a sample's `present` inputs are withheld. A number is drawn for `every` input, present or not,
        so that an input that only some samples have changes nothing for the others."""
        chances = dict(zip(every, random.random(len(every))))
        if self.any_number and present:
            most = (
                len(present) if random.random() < NOTHING else int(random.integers(len(present) + 1 - self.one_stays))
            )
            return sorted(present, key=chances.__getitem__)[:most]
        shares = [self.dropout.get(name, 0.0) for name in present]
        withheld = [name for name, share in zip(present, shares) if chances[name] < share]
        if present and all(shares):
            if random.random() < NOTHING:
                return list(present)
            if len(withheld) == len(present) and self.one_stays:
                del withheld[random.integers(len(withheld))]
        return withheld
