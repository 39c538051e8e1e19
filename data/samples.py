"""Samples of a data set: base classes, samples in memory, generated samples, and views that change other samples."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..files.reading import DataError
from ..files.records import as_numbers
from ..models.contract import ContractError, described
from .base import VAL_SHARE, Dataset, check_locations, undivided
from .fingerprint import Fingerprint
from .keys import ChosenKeys, shares_of

SPREAD = 64
"""The number of samples, spread evenly over a split, whose complete content is part of the fingerprint of the split."""
FILES, BYTES = 20_000, 2**30
"""`Listed` fingerprints its files by their content if there are at most FILES files with at most BYTES bytes in total;
otherwise by their name, size and modification time."""

Columns = Mapping[str, Any]
"""One raw sample: its values by column name. If the sample has no value in a column, the column is absent or its value
is None."""


class Samples:
    """Base class of the samples of one split: `len(samples)`, `samples.keys[i]` and `samples[i]`, in a fixed order. The
    number of a sample is its index i."""

    keys: Sequence[str]
    """The key of each sample, for messages and for the split by hash. Keys are unique, and the same in every run."""

    weights: np.ndarray | None = None
    """The relative probability (n) with which training draws each of the n samples; None: each sample is read once per
    epoch."""
    mixture: Sequence[Any] = ()
    """The sources (`mixture.Source`) if the samples are a mixture; otherwise empty."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Columns:
        """Returns all raw columns of one sample. Raises DataError if the sample cannot be read."""
        raise NotImplementedError

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        """Returns the columns `names` of one sample (None: all columns), without the columns that the sample does not
        have. This default returns all columns and ignores `names`; samples that read columns separately derive from
        `ByColumn`. Raises DataError if the sample cannot be read."""
        return self[number]

    def select(self, numbers: Sequence[int] | np.ndarray) -> Samples:
        """Returns the samples with these numbers, in this order."""
        return Chosen(self, np.asarray(numbers, dtype=np.int64))

    def damaged(self) -> Iterator[tuple[int, str]]:
        """Yields (number, reason) for the samples that are known to be damaged before they are read. The default yields
        none."""
        return iter(())

    def caches(self, number: int) -> bool:
        """Returns whether the decoded sample is cached in memory: True by default. A subclass can return False if its
        samples are generated quickly, and there are enough of them that training hardly reads any of them twice."""
        return True

    @property
    def naming(self) -> Any:
        """The value that represents the keys in the fingerprint: a list of all keys, or the rule that generates the
        keys."""
        return list(self.keys)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """Returns a hash that changes when the samples change. A resumed run must have the same hash as before. By
        default, the hash covers all keys, all values in the columns `labels`, and all columns of SPREAD samples. A
        subclass that reads files can hash the files instead."""
        fingerprint = Fingerprint(self.naming)
        for name in sorted(labels):
            fingerprint.add(name, list(self.numbered(name)))
        count = len(self)
        for number in sorted({index * count // min(SPREAD, count) for index in range(min(SPREAD, count))}):
            try:
                fingerprint.add(number, self[number])
            except (ValueError, OSError):  # the sample counts as bad when a batch reads it
                fingerprint.add(number, "cannot be read")
        return fingerprint.hex

    def numbered(self, name: str) -> Iterator[tuple[int, Any]]:
        """Yields (number, value) of one column, in order, for all samples that have a value. Samples that cannot be
        read are skipped here; they count as bad when training or evaluation reads them."""
        return self._numbered(range(len(self)), name)

    def column(self, name: str) -> Iterator[Any]:
        """Yields the values of one column, in order, without samples that have no value or cannot be read. Class names,
        vocabularies and statistics are computed from these values."""
        return (value for _, value in self.numbered(name))

    def drawn(self, name: str, most: int) -> Iterator[Any]:
        """Yields at most `most` values of one column, from samples in random order, so the order in a file has no
        influence. The random order is the same in every run. Samples that have no value or cannot be read are
        skipped."""
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
    """Base class of samples that read columns separately. A subclass implements `row`, which must not read or compute
    columns other than `names`."""

    def __getitem__(self, number: int) -> Columns:
        return self.row(number)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        raise NotImplementedError


def picked(row: Columns, names: Collection[str] | None) -> Columns:
    """Returns the columns `names` of a row (None: all columns), without the columns that the row does not have."""
    return row if names is None else {name: value for name, value in row.items() if name in names}


class Outcome(NamedTuple):
    """One possible outcome of a generated data set: the values of the inputs by column, the answer, and their
    probability."""

    inputs: Mapping[str, Any]
    answer: str
    probability: float


@runtime_checkable
class Divider(Protocol):
    """A rule that divides the samples of a data set into splits (`division.Division`)."""

    splits: tuple[str, ...]
    folds: int | None
    columns: Sequence[str]
    """The columns that the rule reads."""

    def numbers(self, samples: Samples) -> dict[str, list[int]]:
        """Returns the numbers of the samples in each split, by the name of the split."""

    def notices(self, samples: Samples, numbers: Mapping[str, Sequence[int]]) -> list[str]:
        """Returns sentences about this result that the user should read."""


DatasetType = TypeVar("DatasetType", bound="SampleDataset")


class SampleDataset(Dataset):
    """Base class of data sets of samples. A subclass implements `open` and `columns`."""

    holds_samples = True
    columns: tuple[str, ...] = ()
    """The names of the columns."""
    joined: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Additional columns, each of which consists of several columns (`Channels`)."""
    division: Divider | None = None
    """The rule that divides the samples into splits (`data.split`); None: `open` determines the splits."""

    def others(self) -> list[str]:
        """Returns the columns of the source that `columns` does not contain, for messages. The default returns none."""
        return []

    def open(self, split: str) -> Samples:
        """Returns the samples of a split. Raises DataError if the split does not exist, or if files are missing (the
        message contains their paths)."""
        raise NotImplementedError

    def opened(self, split: str) -> Samples:
        """Returns the result of `open` after a check of its type. Raises DataError if the split does not exist, and
        ContractError if `open` does not return `Samples`."""
        self.check_split(split)
        samples = self._parts[split] if self.division else self.open(split)
        if not isinstance(samples, Samples):
            problem = f"data.dataset: {type(self).__name__}.open({split!r}) returned {described(samples)}"
            expected = "Samples, such as Listed(keys, rows) with a list of mappings from columns to values"
            raise ContractError(f"{problem}; expected: {expected}")
        return Channels(samples, self.joined) if self.joined else samples

    def with_channels(self: DatasetType, joined: Mapping[str, Sequence[str]]) -> DatasetType:
        """Returns a copy of the data set with additional columns, each of which consists of several columns. Raises
        DataError if a column does not exist."""
        dataset = copy(self).with_columns([column for columns in joined.values() for column in columns], "data.columns")
        dataset.joined = joined
        return dataset

    def with_columns(self: DatasetType, names: Sequence[str], key: str) -> DatasetType:
        """Returns the data set, or a copy that also reads the columns `names` of its source. Raises DataError if one of
        them does not exist; `key` is the setting that names them."""
        missing = dict.fromkeys(name for name in names if name not in self.columns)
        unused = self.others() if missing else []
        if not {*missing} <= {*unused}:
            wrong, possible = next(name for name in missing if name not in unused), (*self.columns, *unused)
            raise DataError(f"{key}: dataset {self.name!r} has no column {wrong!r}; possible: {', '.join(possible)}")
        if not missing:
            return self
        dataset = copy(self)
        dataset.columns = (*self.columns, *missing)
        return dataset

    def divided(self: DatasetType, division: Divider) -> DatasetType:
        """Returns a copy of the data set whose samples are divided into splits by a rule. Raises DataError if the data
        set has its own splits (but folds can divide them), or if a column of the rule does not exist."""
        self.check_divisible(division)
        dataset = copy(self.with_columns(division.columns, "data.split"))
        dataset.division, dataset.splits = division, division.splits
        return dataset

    def check_divisible(self, division: Divider) -> None:
        """Raises DataError if the data set has its own splits, which this rule cannot divide."""
        if not division.folds:
            own = ", ".join(split for split in self.splits if split != "train")
            raise DataError(f"data.split: dataset {self.name!r} has its own splits ({own}); remove data.split")

    def undivided(self) -> Samples:
        """Returns the samples that `division` divides: those of train and val."""
        return Joined({split: self.open(split) for split in ("train", "val")})

    @cached_property
    def _division(self) -> tuple[Samples, dict[str, list[int]]]:
        """All samples, and the numbers of the samples in each split."""
        samples = self.undivided()
        return samples, self.division.numbers(samples)

    @cached_property
    def _parts(self) -> dict[str, Samples]:
        samples, numbers = self._division
        return {split: samples.select(part) for split, part in numbers.items()}

    def notices(self) -> list[str]:
        """Returns sentences about the splits that the user should read before training."""
        return self.division.notices(*self._division) if self.division else []

    truth_column: str = ""
    """The column whose values are the answers in `truth`; empty without a known distribution."""

    def truth(self, split: str) -> list[Outcome] | None:
        """Returns all outcomes with their probabilities (the joint distribution of inputs and answers), if a known rule
        generates the data. Otherwise, and by default, returns None."""
        return None

    def training_items(self, columns: Sequence[str], most: int | None = None) -> Iterable[Any]:
        """Returns the values of these columns of the training split, one column after another. If `most` is not None,
        returns at most `most` random values of each column."""
        samples = self.opened("train")
        read = samples.column if most is None else lambda name: samples.drawn(name, most)
        return chain.from_iterable(map(read, columns))

    def about(self) -> dict[str, object]:
        return {}


@dataclass(frozen=True, eq=False)
class Chosen(ByColumn):
    """A subset of other samples, selected by their `numbers`, in this order."""

    samples: Samples
    numbers: Sequence[int] | np.ndarray

    @property
    def keys(self) -> Sequence[str]:
        return ChosenKeys(self.samples.keys, self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return self.samples.row(int(self.numbers[number]), names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint(self.samples.fingerprint(labels), list(map(int, self.numbers))).hex

    def damaged(self) -> Iterator[tuple[int, str]]:
        reasons = dict(self.samples.damaged())
        return ((index, reasons[number]) for index, number in enumerate(self.numbers) if number in reasons)

    def caches(self, number: int) -> bool:
        return self.samples.caches(int(self.numbers[number]))


@dataclass(frozen=True)
class Listed(ByColumn):
    """Samples in memory, with one key and one row each: `Listed(["a", "b"], [{"text": "ja", "label": 1}, {"text": "no",
    "label": 0}])`."""

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
    """Base class of samples that change the columns of other samples. A subclass implements `row` and `fingerprint`."""

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
    """The same samples with new columns. `columns` maps the name of each new column to a function that receives the raw
    sample and returns the value. `sources` maps the name to the raw column that this function reads, or to a value
    inside this column: `{"label": "cls", "speaker": "json.speaker"}`."""

    columns: Mapping[str, Callable[[Columns], Any]]
    sources: Mapping[str, str]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Renamed", self.samples.fingerprint(labels), [dict(self.sources)]).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        columns = picked(self.columns, names)
        raw = self.samples.row(number, {self.sources[name].partition(".")[0] for name in columns})
        return {name: read(raw) for name, read in columns.items()}


@dataclass(frozen=True)
class Channels(Changed):
    """The same samples with new columns, each of which contains the values of several columns as the channels of one
    stream: `joined` {"motion": ["x", "y"]} makes [[1, 5], [2, 6]] from x [1, 2] and y [5, 6], and [[1, 5]] from 1 and
    5. A missing value of some of the columns is NaN; if all are missing, so is the new value."""

    joined: Mapping[str, Sequence[str]]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        names = dict.fromkeys(source for label in labels for source in self.joined.get(label, [label]))
        options = [{name: list(sources) for name, sources in self.joined.items()}]
        return Fingerprint("Channels", self.samples.fingerprint(list(names)), options).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        sources = None
        if names is not None:
            sources = {source for name in names for source in self.joined.get(name, [name])}
        row = dict(self.samples.row(number, sources))
        for name, columns in self.joined.items():
            if names is None or name in names:
                row[name] = channels([row.get(column) for column in columns], columns)
        return picked(row, names)


def channels(values: Sequence[Any], columns: Sequence[str]) -> np.ndarray | None:
    """Returns the values of several columns as one stream (times, channels); None if all values are missing. Raises
    DataError if a value is not a number or a list of numbers, or if the lists have different lengths."""
    streams = [None if value is None else np.atleast_1d(np.asarray(as_numbers(value))) for value in values]
    lengths = {len(stream) for stream in streams if stream is not None}
    for stream, column in zip(streams, columns, strict=True):
        if stream is not None and (stream.ndim != 1 or stream.dtype.kind not in "biuf"):
            raise DataError(f"column {column!r} must have a number, or a list of numbers")
    if len(lengths) > 1:
        raise DataError(f"columns {', '.join(columns)} have different numbers of values: {sorted(lengths)}")
    if not lengths:
        return None
    missing = np.full(lengths.pop(), np.nan)
    return np.stack([missing if stream is None else stream.astype(np.float32) for stream in streams], axis=1)


@dataclass(frozen=True)
class Hidden(Changed):
    """The same samples, but the value of column `name` is None in the samples with the numbers `hidden`."""

    name: str
    hidden: Collection[int]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Hidden", self.samples.fingerprint(labels), [self.name, sorted(self.hidden)]).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        row = self.samples.row(number, names)
        hidden = self.name if number in self.hidden else None
        return {name: None if name == hidden else value for name, value in row.items()}


@dataclass(frozen=True)
class Joined(ByColumn):
    """The samples of several `parts`, one part after another. A key begins with the name of the part: `val: a.png`."""

    parts: Mapping[str, Samples]

    @cached_property
    def keys(self) -> Sequence[str]:
        return [f"{name}: {key}" for name, samples in self.parts.items() for key in samples.keys]

    @cached_property
    def _ends(self) -> list[int]:
        return np.cumsum([len(samples) for samples in self.parts.values()]).tolist()

    def _find(self, number: int) -> tuple[Samples, int]:
        """Returns (the part that contains a sample, the number of the sample in this part)."""
        index = bisect_right(self._ends, number)
        return list(self.parts.values())[index], number - ([0, *self._ends])[index]

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        samples, index = self._find(number)
        return samples.row(index, names)

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint({name: samples.fingerprint(labels) for name, samples in self.parts.items()}).hex

    def damaged(self) -> Iterator[tuple[int, str]]:
        for samples, end in zip(self.parts.values(), self._ends, strict=True):
            yield from ((end - len(samples) + number, reason) for number, reason in samples.damaged())

    def caches(self, number: int) -> bool:
        samples, index = self._find(number)
        return samples.caches(index)


def share(samples: Samples, split: str) -> Samples:
    """Returns the part of the training samples for the split `train` or `val`, for data sets without a separate
    validation split. About a tenth of the samples, and at least one, is in `val`, selected by the hash of the key."""
    shares = shares_of(samples.keys)
    in_val = shares < VAL_SHARE
    if len(shares) and not in_val.any():
        in_val[shares.argmin()] = True
    return samples.select(np.flatnonzero(in_val == (split == "val")))


class OwnFiles(SampleDataset):
    """Base class of data sets of user files. `train`, `val` and `test` tell `read` where the files of a split are, such
    as a path, or a mapping from columns to paths. Without `val`, about a tenth of the samples of train (at least one)
    is used for validation, selected by the hash of their keys. Without `test`, there is no test split. A subclass
    implements `read`, and calls this `__init__`."""

    def __init__(self, train: Any, val: Any, test: Any):
        check_locations(train=train, val=val, test=test)
        self.train, self.val, self.test = train, val, test
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    def read(self, where: Any) -> Samples:
        """Returns the samples at the location `where` (the value of `train`, `val` or `test`). Raises DataError if the
        samples cannot be read."""
        raise NotImplementedError

    def open(self, split: str) -> Samples:
        self.check_split(split)
        where = getattr(self, split)
        return share(self.read(self.train), split) if self.val is None and split != "test" else self.read(where)

    def check_divisible(self, division: Divider) -> None:
        own = [split for split in ("val", "test") if getattr(self, split) is not None]
        if own and not division.folds:
            raise DataError(
                f"data.split: the data set has files for {' and '.join(own)} (dataset.{own[0]}); remove these, or "
                "remove data.split"
            )

    def undivided(self) -> Samples:
        return self.read(self.train) if self.val is None else super().undivided()

    def whole(self) -> OwnFiles:
        return undivided(self, self.train.values() if isinstance(self.train, Mapping) else self.train)


MOST = 2**32
"""The maximum number of generated samples. Random generators are seeded with the number of the sample as a 32-bit
integer."""


@dataclass(frozen=True)
class ByLabel:
    """Draws random samples with a given label, for data sets that combine samples. The samples need a column
    `label`."""

    samples: Samples

    @cached_property
    def numbers(self) -> Mapping[Any, list[int]]:
        """The numbers of the samples, by label."""
        numbers = defaultdict(list)
        for number, label in self.samples.numbered("label"):
            numbers[label].append(number)
        return numbers

    def drawn(self, label: Any, random: np.random.Generator) -> int:
        """Returns the number of a random sample with this label."""
        numbers = self.numbers[label]
        return numbers[int(random.integers(len(numbers)))]

    def value(self, number: int, name: str) -> Any:
        """Returns the column `name` of the sample with this number."""
        return self.samples.row(number, (name,))[name]


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """The keys "train tone 0", "train tone 1", ...; here `prefix` is "train tone". Keys are generated on access,
    because there may be millions."""

    prefix: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(self.count))]
        return f"{self.prefix} {range(self.count)[number]}"


class Made(ByColumn):
    """Base class of `count` samples that are generated by a rule. A sample depends only on the split, on its number,
    and on `sources`: the samples that are combined into generated samples. `noun` is the word in the keys, such as
    "tone" in "train tone 7". A subclass implements `parts`."""

    splits = ("train", "val", "test")

    def __init__(self, split: str, count: int, noun: str, *sources: Samples):
        self.split, self.keys, self.sources = split, Numbered(f"{split} {noun}", count), sources

    @property
    def naming(self) -> Any:
        return self.keys.prefix, self.keys.count

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        content = super().fingerprint(labels)
        sources = [source.fingerprint() for source in self.sources]
        return Fingerprint(content, sources).hex if sources else content

    def random(self, number: int, *more: int) -> np.random.Generator:
        """Returns the random generator of the sample `number`. The seed consists of the split, `number` and `more`.
        Different integers in `more` give different random numbers, for example to different data sets, or to different
        columns of a sample."""
        seed = np.array([self.splits.index(self.split), number, *more], dtype=np.uint32)  # a list takes a third longer
        return np.random.default_rng(seed)

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        """Returns functions without arguments that generate the columns of a sample, by column name. A function returns
        None if the sample does not have this column. The result of a function must not depend on which other functions
        were called before it."""
        raise NotImplementedError

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        row = {name: make() for name, make in picked(self.parts(number), names).items()}
        return {name: value for name, value in row.items() if value is not None}


class MadeDataset(SampleDataset):
    """Base class of data sets of `Made` samples. `samples` is the number of training samples; validation and test have
    `held_back` samples each. A subclass implements `make`."""

    splits = Made.splits
    held_back = 1000
    samples: int

    def make(self, split: str, count: int) -> Samples:
        """Returns the `Made` samples of a split; `count` is their number."""
        raise NotImplementedError

    def open(self, split: str) -> Samples:
        self.check_split(split)
        if not 1 <= self.samples <= MOST:
            raise DataError(f"data.dataset.samples: must be from 1 to {MOST:,}, not {self.samples:,}")
        return self.make(split, self.samples if split == "train" else self.held_back)
