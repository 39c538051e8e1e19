"""Base classes of data sets of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from ..files.reading import DataError
from ..models.contract import ContractError, described
from .base import Dataset, check_locations, undivided
from .key_hashes import VAL_SHARE
from .sample_keys import shares_of
from .samples import Channels, Joined, Samples


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

    def numbers(self, samples: Samples, splits: Sequence[str]) -> dict[str, list[int]]:
        """Returns the numbers of the samples in each of the `splits`, by the name of the split."""

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
    kept: tuple[str, ...] = ()
    """The splits that `division` does not change, because the source has separate samples for them."""

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
        """Returns a copy of the data set in which a rule divides train into the splits that the data set does not
        provide; folds divide train and val. Raises DataError if the data set provides all of them, or the split test of
        the rule, or if a column of the rule does not exist."""
        if not division.folds and not {*division.splits[1:]} - {*self.provided}:
            own = " and ".join(self.provided)
            raise DataError(f"data.split: dataset {self.name!r} provides samples for {own}; remove data.split")
        if not division.folds and {"test"} <= {*division.splits} & {*self.provided}:
            raise DataError(f"data.split.test: dataset {self.name!r} provides samples for test; remove data.split.test")
        dataset = copy(self.with_columns(division.columns, "data.split"))
        dataset.division = division
        dataset.kept = tuple(
            name for name in self.provided if not division.folds or name not in ("val", *division.splits)
        )
        dataset.splits = tuple(name for name in ("train", "val", "test") if name in (*division.splits, *dataset.kept))
        return dataset

    @property
    def provided(self) -> tuple[str, ...]:
        """The splits other than train for which the source has separate samples."""
        return tuple(name for name in self.splits if name != "train")

    def undivided(self) -> Samples:
        """Returns the samples that `division` divides: those of train, and for folds also those of val."""
        own = type(self).open  # a view of a divided data set refuses `open` (experiment/run_samples.py)
        joined = {name: own(self, name) for name in ("train", "val") if name not in self.kept}
        return Joined(joined) if len(joined) > 1 else joined["train"]

    @cached_property
    def _division(self) -> tuple[Samples, dict[str, list[int]]]:
        """The samples that are divided, and the numbers of the samples in each of their splits."""
        samples = self.undivided()
        return samples, self.division.numbers(samples, [split for split in self.splits if split not in self.kept])

    @cached_property
    def _parts(self) -> dict[str, Samples]:
        samples, numbers = self._division
        kept = {split: type(self).open(self, split) for split in self.kept}
        return {split: samples.select(part) for split, part in numbers.items()} | kept

    def notices(self) -> list[str]:
        """Returns sentences about the splits that the user should read before training."""
        return self._notices() if self.division else []

    def _notices(self) -> list[str]:
        samples, numbers = self._division
        lines = [f"data.split: {split} provides samples" for split in self.kept]
        lines += self.division.notices(samples, numbers)
        if "test" in numbers:
            lines = [f"data.split: {len(numbers['test']):,} samples for test, which training does not read", *lines]
        return lines

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

    paths = ("train", "val", "test")

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

    @property
    def provided(self) -> tuple[str, ...]:
        return tuple(name for name in ("val", "test") if getattr(self, name) is not None)

    def undivided(self) -> Samples:
        return self.read(self.train) if self.val is None else super().undivided()

    def whole(self) -> OwnFiles:
        return undivided(self, self.train.values() if isinstance(self.train, Mapping) else self.train)
