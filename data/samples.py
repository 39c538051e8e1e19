"""Samples of a data set: by column, made by rule, listed, renamed, and their fingerprint."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files.reading import DataError
from ..models.contract import ContractError, described
from .base import Dataset, chosen_for_val, split_by_hash, undivided
from .fingerprint import Fingerprint

SPREAD = 64
"""How many samples, spread evenly over a split, its fingerprint looks into."""
FILES, BYTES = 20_000, 2**30
"""Up to so many files and so many bytes in all, `Listed` fingerprints files by their contents, beyond by name, size and
time of change."""

Columns = Mapping[str, Any]
"""One raw sample: a value by column name. A column may be absent, or None: this sample has none."""


class Samples:
    """One split of a data set: `len(samples)`, `samples.keys[i]` and `samples[i]`, in an order that never changes."""

    keys: Sequence[str]
    """The name of each sample, for messages and the split by hash; unique and stable."""

    weights: np.ndarray | None = None
    """How often each sample is drawn for training, (n,), adding up to 1; None: each once an epoch."""
    mixture: Sequence[Any] = ()
    """Of a mixture the data sets in it (`samples/mixed.py`)."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Columns:
        """The raw columns of one sample. Raises DataError, naming the sample, when it cannot be read."""
        raise NotImplementedError

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        """The columns `names` of one sample, as far as it has them; None: all. By default the complete sample, others
        included; the base of samples that read a column without the others is `ByColumn`. Raises DataError as
        `__getitem__` does."""
        return self[number]

    def damaged(self) -> Iterator[tuple[int, str]]:
        """The numbers of samples that are known to be unreadable before they are read, and why."""
        return iter(())

    def caches(self, number: int) -> bool:
        """Whether a sample is kept in memory once it is decoded. False if it is made anew at once, and there are so
        many samples that training reads few of them twice."""
        return True

    @property
    def naming(self) -> Any:
        """What is hashed of the keys: all of them, or the rule by which they are made."""
        return list(self.keys)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """A hash that changes when the samples do: a resumed run must find those that it was trained on. By default
        over all keys, all values in the columns `labels`, and all columns of SPREAD samples; a subclass that reads
        files may hash those instead."""
        found = Fingerprint(self.naming)
        for name in sorted(labels):
            found.add(name, list(self.numbered(name)))
        count = len(self)
        for number in sorted({index * count // min(SPREAD, count) for index in range(min(SPREAD, count))}):
            try:
                found.add(number, self[number])
            except (ValueError, OSError):  # it counts as bad when its turn comes
                found.add(number, "cannot be read")
        return found.hex

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """(number, value) of one column for all samples that have it, in order.

        Samples that cannot be read are left out: they count as bad when they are read for training or evaluation.
        """
        return self._numbered(range(len(self)), name)

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, in order: what labels, vocabularies and statistics are fitted on."""
        return (value for _, value in self.numbered(name))

    def drawn(self, name: str, most: int) -> Iterator[Any]:
        """At most `most` values of one column, of samples drawn at random (the same in every run), so that the order of
        a file biases nothing. Samples that lack it or cannot be read are passed over."""
        numbers = np.random.default_rng(0).permutation(len(self)).tolist()
        return islice((value for _, value in self._numbered(numbers, name)), most)

    def _numbered(self, numbers: Iterable[int], name: str) -> Iterator[tuple[int, Any]]:
        for number in numbers:
            value = None
            with suppress(ValueError, OSError):
                value = self.row(number, (name,)).get(name)
            if value is not None:
                yield number, value


class ByColumn(Samples):
    """Base of samples that read a column without the others: a subclass gives `row`, which must neither read nor
    compute another column than `names`."""

    def __getitem__(self, number: int) -> Columns:
        return self.row(number)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        raise NotImplementedError


def picked(row: Columns, names: Collection[str] | None) -> Columns:
    """The columns `names` of a row, as far as it has them; None: all."""
    return row if names is None else {name: value for name, value in row.items() if name in names}


class Outcome(NamedTuple):
    """One row of the joint table of a made data set: the values of its inputs, the answer, and their probability."""

    inputs: Mapping[str, Any]
    answer: str
    probability: float


class SampleDataset(Dataset):
    """Base of the datasets whose data are samples. A subclass gives `open` and `columns`."""

    holds_samples = True
    columns: tuple[str, ...] = ()
    """The names of its samples' columns."""

    def others(self) -> list[str]:
        """The columns of the source that `columns` does not name, for messages."""
        return []

    def open(self, split: str) -> Samples:
        """The samples of a split. Raises DataError for a split that does not exist and where files are missing, saying
        which to put where."""
        raise NotImplementedError

    def opened(self, split: str) -> Samples:
        """What `open` gives, checked. Raises DataError for a split that does not exist, ContractError where `open` gave
        anything but Samples."""
        self.check_split(split)
        found = self.open(split)
        if not isinstance(found, Samples):
            gave = f"data.dataset: {type(self).__name__}.open({split!r}) gave {described(found)}"
            expected = "Samples, such as Listed(keys, rows) of a list of mappings from columns to values"
            raise ContractError(f"{gave}; expected are {expected}")
        return found

    truth_column: str = ""
    """The column whose values are the answers of `truth`."""

    def truth(self, split: str) -> list[Outcome] | None:
        """The joint table of inputs and answers, where the data are made by a known rule; else None."""
        return None

    def training_items(self, columns: Sequence[str], most: int | None = None) -> Iterable[Any]:
        """The values of some columns of the training split, one column after another; `most` of each, drawn at random,
        where that is given."""
        samples = self.opened("train")
        read = samples.column if most is None else lambda name: samples.drawn(name, most)
        return chain.from_iterable(map(read, columns))

    def about(self) -> dict[str, object]:
        return {}


@dataclass(frozen=True)
class Chosen(ByColumn):
    """A subset of samples, by their numbers."""

    samples: Samples
    numbers: Sequence[int]

    @cached_property
    def keys(self) -> Sequence[str]:
        every = self.samples.keys
        return [every[number] for number in self.numbers]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return self.samples.row(self.numbers[number], names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint(self.samples.fingerprint(labels), list(self.numbers)).hex

    def damaged(self) -> Iterator[tuple[int, str]]:
        known = dict(self.samples.damaged())
        return ((own, known[number]) for own, number in enumerate(self.numbers) if number in known)

    def caches(self, number: int) -> bool:
        return self.samples.caches(self.numbers[number])


@dataclass(frozen=True)
class Listed(ByColumn):
    """Samples in memory: `Listed(["a", "b"], [{"text": "ja", "label": 1}, {"text": "no", "label": 0}])`."""

    keys: Sequence[str]
    rows: Sequence[Columns]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return picked(self.rows[number], names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        files = [Path(value) for row in self.rows for value in row.values() if isinstance(value, os.PathLike)]
        few = len(files) <= FILES and sum(file.stat().st_size for file in files if os.path.exists(file)) <= BYTES
        return Fingerprint(list(self.keys), list(self.rows), contents=few).hex


@dataclass(frozen=True)
class Changed(ByColumn):
    """Base of samples whose columns are changed: a subclass gives `row` and `fingerprint`."""

    samples: Samples

    @property
    def keys(self) -> Sequence[str]:
        return self.samples.keys

    def damaged(self) -> Iterator[tuple[int, str]]:
        return self.samples.damaged()

    def caches(self, number: int) -> bool:
        return self.samples.caches(number)


@dataclass(frozen=True)
class Renamed(Changed):
    """The same samples with new columns: `columns` maps each name to a function of the raw sample, `sources` to the one
    raw column that this function reads, or to a value inside it: `{"label": "cls", "speaker": "json.speaker"}`."""

    columns: Mapping[str, Callable[[Columns], Any]]
    sources: Mapping[str, str]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Renamed", self.samples.fingerprint(labels), [dict(self.sources)]).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        columns = picked(self.columns, names)
        raw = self.samples.row(number, {self.sources[name].partition(".")[0] for name in columns})
        return {name: read(raw) for name, read in columns.items()}


@dataclass(frozen=True)
class Hidden(Changed):
    """The same samples, of which those with the numbers `hidden` lack the column `name`."""

    name: str
    hidden: Collection[int]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Hidden", self.samples.fingerprint(labels), [self.name, sorted(self.hidden)]).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        row = self.samples.row(number, names)
        hidden = self.name if number in self.hidden else None
        return {name: None if name == hidden else value for name, value in row.items()}


def share(samples: Samples, split: str) -> Chosen:
    """The part of a training set that is `train` or `val`, where the data set has no val: a tenth validates, by hash of
    the key, but one sample at least."""
    alone = chosen_for_val(samples.keys)
    splits = ("val" if key == alone else split_by_hash(key) for key in samples.keys)
    return Chosen(samples, [number for number, own in enumerate(splits) if own == split])


class OwnFiles(SampleDataset):
    """Base of the data sets of one's own files: `train`, `val` and `test` say where they are. Without `val` a tenth of
    train validates, by hash of the key; without `test` there is none. A subclass gives `read`, and calls this
    `__init__`."""

    def __init__(self, train: Any, val: Any, test: Any):
        self.train, self.val, self.test = train, val, test
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    def read(self, where: Any) -> Samples:
        """The samples at `where`: the value of `train`, `val` or `test`. Raises DataError where they cannot be read."""
        raise NotImplementedError

    def open(self, split: str) -> Samples:
        self.check_split(split)
        where = getattr(self, split)
        return share(self.read(self.train), split) if self.val is None and split != "test" else self.read(where)

    def whole(self) -> OwnFiles:
        return undivided(self, self.train.values() if isinstance(self.train, Mapping) else self.train)


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
