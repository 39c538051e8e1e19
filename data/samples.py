"""Samples: data sets of independent items with named columns (an image, a label, a sound, a caption), read by number."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from .card import Card, split_by_hash

Columns = Mapping[str, Any]
"""One raw sample: a value by column name. A column may be absent, or None: this sample has none."""


class Samples:
    """One split of a data set: `len(samples)`, `samples.keys[i]` and `samples[i]`, in an order that never changes."""

    keys: Sequence[str]
    """What names each sample in messages; unique and stable."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Columns:
        """The raw columns of one sample. Raises DataError, naming the sample, when it cannot be read."""
        raise NotImplementedError

    def damaged(self) -> Iterator[tuple[int, str]]:
        """The numbers of samples that are known to be unreadable before anybody reads them, and why."""
        return iter(())

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """One column of all samples that have it, in order, each with its sample's number.

        Samples that cannot be read are left out: they count as bad when their turn comes.
        """
        for number in range(len(self)):
            try:
                value = self[number].get(name)
            except (ValueError, OSError):
                continue
            if value is not None:
                yield number, value

    def column(self, name: str) -> Iterator[Any]:
        """The same without the numbers: what labels, vocabularies and statistics are fitted on."""
        return (value for _, value in self.numbered(name))


class Outcome(NamedTuple):
    """One row of a joint table: what the inputs show, what the answer is, and how often that happens."""

    inputs: Mapping[str, Any]
    answer: str
    probability: float


class SampleCard(Card):
    """Base of the cards whose data are samples. A subclass gives `open` and `columns`."""

    columns: tuple[str, ...] = ()
    """The names that its samples' columns have."""

    def open(self, split: str) -> Samples:
        """The samples of a split. Raises DataError where they are not to be had, saying which files to put where."""
        raise NotImplementedError

    def truth(self, split: str) -> list[Outcome] | None:
        """The joint table of columns and answers, where the data are made by a known rule; else None."""
        return None

    def about(self) -> dict[str, object]:
        return {"samples": {split: len(self.open(split)) for split in self.splits}}


@dataclass(frozen=True)
class Chosen(Samples):
    """Some samples of a data set, by number."""

    samples: Samples
    numbers: Sequence[int]

    @cached_property
    def keys(self) -> Sequence[str]:
        every = self.samples.keys
        return [every[number] for number in self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Columns:
        return self.samples[self.numbers[number]]

    def damaged(self) -> Iterator[tuple[int, str]]:
        known = dict(self.samples.damaged())
        return ((own, known[number]) for own, number in enumerate(self.numbers) if number in known)


@dataclass(frozen=True)
class Listed(Samples):
    """Samples that are in memory already."""

    keys: Sequence[str]
    rows: Sequence[Columns]

    def __getitem__(self, number: int) -> Columns:
        return self.rows[number]


@dataclass(frozen=True)
class Changed(Samples):
    """Base of the same samples with other columns: a subclass gives `__getitem__`."""

    samples: Samples

    @property
    def keys(self) -> Sequence[str]:
        return self.samples.keys

    def __len__(self) -> int:
        return len(self.samples)

    def damaged(self) -> Iterator[tuple[int, str]]:
        return self.samples.damaged()


@dataclass(frozen=True)
class Renamed(Changed):
    """The same samples with columns under other names: `columns` gives the source of each."""

    columns: Mapping[str, Callable[[Columns], Any]]

    def __getitem__(self, number: int) -> Columns:
        row = self.samples[number]
        return {name: read(row) for name, read in self.columns.items()}


@dataclass(frozen=True)
class Hidden(Changed):
    """The same samples, of which those with these numbers lack one column."""

    name: str
    hidden: Container[int]

    def __getitem__(self, number: int) -> Columns:
        row = self.samples[number]
        return {**row, self.name: None} if number in self.hidden else row


def share(samples: Samples, split: str) -> Samples:
    """The part of a training set that belongs to `train` or `val` where there is no val: a tenth, by hash of the key."""
    chosen = [number for number, key in enumerate(samples.keys) if split_by_hash(key) == split]
    return Chosen(samples, chosen)
