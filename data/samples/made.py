"""Samples that are made by a rule, each a function of its number alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...tokenizers.files.reading import DataError
from ..fingerprint import Fingerprint
from .dataset import ByColumn, Columns, SampleDataset, Samples, picked

MOST = 2**32
"""The most samples of a made data set: their numbers seed random generators as 32-bit words."""


@dataclass(frozen=True)
class ByLabel:
    """Samples to be drawn by their label, for data sets that are made of them."""

    samples: Samples

    @cached_property
    def numbers(self) -> Mapping[Any, list[int]]:
        """The numbers of the samples of each label."""
        found = defaultdict(list)
        for number, label in self.samples.numbered("label"):
            found[label].append(number)
        return found

    def drawn(self, label: Any, random: np.random.Generator) -> int:
        """The number of a sample of this label."""
        numbers = self.numbers[label]
        return numbers[int(random.integers(len(numbers)))]

    def value(self, number: int, name: str) -> Any:
        """The column `name` of the sample with this number."""
        return self.samples.row(number, (name,))[name]


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """The keys "train tone 0", "train tone 1", ..., made when they are asked for: there may be millions."""

    what: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self.count))]
        return f"{self.what} {range(self.count)[number]}"


class Made(ByColumn):
    """Base of `count` samples that are made by a rule. Each is a function of the split, its number, and the `sources`:
    other samples, from which it is made. `what` is the word for one sample in its key, such as "train tone 7". A
    subclass gives `parts`."""

    splits = ("train", "val", "test")

    def __init__(self, split: str, count: int, what: str, *sources: Samples):
        self.split, self.keys, self.sources = split, Numbered(f"{split} {what}", count), sources

    @property
    def naming(self) -> Any:
        return self.keys.what, self.keys.count

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        own = super().fingerprint(labels)
        return Fingerprint(own, [each.fingerprint() for each in self.sources]).hex if self.sources else own

    def random(self, number: int, *more: int) -> np.random.Generator:
        """The random generator of a sample, seeded by the split, its number and `more`: constants that tell data sets
        apart."""
        seed = np.array([self.splits.index(self.split), number, *more], dtype=np.uint32)  # a list takes a third longer
        return np.random.default_rng(seed)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        """The function that makes each column of a sample, by the column's name; it gives None where the sample has
        none. No function depends on which of the others were called before."""
        raise NotImplementedError

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        made = {name: make() for name, make in picked(self.parts(number), names).items()}
        return {name: value for name, value in made.items() if value is not None}


class MadeDataset(SampleDataset):
    """Base of data sets of `Made` samples: `samples` of them train, `held_back` validate, and as many test."""

    splits = Made.splits
    held_back = 1000
    samples: int

    def make(self, split: str, count: int) -> Samples:
        """`count` samples of a split."""
        raise NotImplementedError

    def open(self, split: str) -> Samples:
        self.check_split(split)
        if not 1 <= self.samples <= MOST:
            raise DataError(f"data.dataset.samples: must be from 1 to {MOST:,}, not {self.samples:,}")
        return self.make(split, self.samples if split == "train" else self.held_back)
