"""Samples of a data set: base classes, samples in memory, generated samples, and views that change other samples."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..files.reading import DataError
from ..files.records import as_numbers
from .fingerprint import Fingerprint
from .sample_keys import ChosenKeys

SPREAD = 64
"""The number of samples, spread evenly over a split, whose complete content is part of the fingerprint of the split."""
FILES, BYTES = 20_000, 2**30
"""`Listed` fingerprints its files by their content if there are at most FILES files with at most BYTES bytes in total;
otherwise by their name, size and modification time."""

Columns = Mapping[str, Any]
"""One raw sample: its values by column name. If the sample has no value in a column, the column is absent or its value
is None."""


class Blocks(NamedTuple):
    """Samples that depend on each other, because they overlap in time."""

    of_sample: np.ndarray
    """The number of the block of each sample (n)."""
    length: str
    """The time from the begin of a block to that of the next one: `96 h`."""


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
    blocks: Blocks | None = None
    """The blocks of overlapping samples, such as the windows of a table; None: samples do not overlap."""

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Columns:
        """Returns all raw columns of one sample. Raises DataError if the sample cannot be read."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Columns]:
        """Yields all samples in order."""
        return (self[number] for number in range(len(self)))

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        """Returns the columns `names` of one sample (None: all columns), without the columns that the sample does not
        have. This default returns all columns and ignores `names`; samples that read columns separately derive from
        `ByColumn`. Raises DataError if the sample cannot be read."""
        return self[number]

    @property
    def column_names(self) -> list[str]:
        """The names of the columns that occur in the samples."""
        return list(dict.fromkeys(name for row in self for name in row))

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


@dataclass(frozen=True, eq=False)
class Chosen(ByColumn):
    """A subset of other samples, selected by their `numbers`, in this order."""

    samples: Samples
    numbers: Sequence[int] | np.ndarray

    @property
    def keys(self) -> Sequence[str]:
        return ChosenKeys(self.samples.keys, self.numbers)

    @property
    def column_names(self) -> list[str]:
        return self.samples.column_names

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

    @property
    def blocks(self) -> Blocks | None:
        blocks = self.samples.blocks
        return blocks and Blocks(blocks.of_sample[np.asarray(self.numbers, dtype=np.int64)], blocks.length)


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

    @property
    def blocks(self) -> Blocks | None:
        return self.samples.blocks


@dataclass(frozen=True)
class Visible(Changed):
    """The same samples with only some of their columns. They are read once and not cached."""

    columns: Collection[str]

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        return Fingerprint("Visible", self.samples.fingerprint(labels), sorted(self.columns)).hex

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        visible = [name for name in self.columns if names is None or name in names]
        return picked(self.samples.row(number, visible), visible)

    def caches(self, number: int) -> bool:
        return False


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

    @property
    def blocks(self) -> Blocks | None:
        parts = [samples.blocks for samples in self.parts.values()]
        if None in parts:
            return None
        firsts = np.cumsum([0, *(int(part.of_sample.max(initial=-1)) + 1 for part in parts)])
        return Blocks(np.concatenate([part.of_sample + first for part, first in zip(parts, firsts)]), parts[0].length)
