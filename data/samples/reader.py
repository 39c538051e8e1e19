"""Reading samples: from a number to decoded inputs and labels. Small data sets are kept in memory once decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ...models.contract import ContractError, described
from ...tokenizers.base import Chopper
from ...tokenizers.files.reading import DataError
from ..unread import BadSamples
from .dataset import Samples
from .inputs import Inputs

CACHED = 2**30
"""Bytes (1 GiB) of decoded items that a split keeps in memory."""

BESIDE, TENSOR, ARRAY = 300, 600, 150
"""Bytes of memory that an item takes beside its values, for its mappings, and that each tensor and each other array
takes beside its numbers."""

Item = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The decoded inputs of a sample by input name, and its labels by column: `({"image": array}, {"label": 7})`."""


def held(value: Any) -> int:
    """About the bytes of memory that a decoded input takes; what is neither an array nor a mapping of some counts as
    64 bytes."""
    if isinstance(value, Mapping):
        return ARRAY + sum(map(held, value.values()))
    return getattr(value, "nbytes", 64) + (TENSOR if isinstance(value, Tensor) else ARRAY)


class ItemCache:
    """A cache of items by sample number: the first that fit into so many bytes, which are never evicted."""

    def __init__(self, bytes: int = CACHED):
        self.free, self.items = bytes, {}

    def get(self, number: int) -> Item | None:
        """The item of this number; None where it is not cached."""
        return self.items.get(number)

    def put(self, number: int, item: Item) -> None:
        """Keep an item where there is room."""
        size = BESIDE + sum(map(held, item[0].values()))
        if size <= self.free:
            self.free -= size
            self.items[number] = item


class Reader:
    """Reads samples by number. `checks` holds for each column of labels the tasks' functions that raise DataError for
    a value that makes its sample bad."""

    def __init__(
        self, samples: Samples, choppers: Mapping[str, Chopper], inputs: Inputs, bad: BadSamples,
        checks: Mapping[str, Sequence[Callable[[Any], None]]] | None = None,
    ):  # fmt: skip
        self.samples, self.choppers, self.inputs, self.bad, self.checks = samples, choppers, inputs, bad, checks or {}
        self.cache, self.read = ItemCache(), ItemCache()
        self.columns = {*inputs.columns.values(), *inputs.labels}
        """The data columns that are read of each sample."""
        self.differs = any(type(chopper).read is not Chopper.read for chopper in choppers.values())
        """Whether training may read less of an item than it is."""
        self._numbers: dict[str, int] = {}

    def item(self, number: int, training: bool = False) -> Item:
        """The decoded inputs and the labels of a sample; while `training`, what the choppers `read` of it. Raises
        DataError (or OSError) when it is bad, ContractError where the data set gives no mapping."""
        if number in self.bad:
            raise DataError(self.bad[number])
        cache = self.read if training and self.differs else self.cache
        found = cache.get(number)
        if found is None:
            raw = self.samples.row(number, self.columns)
            if not isinstance(raw, Mapping):
                raise ContractError(
                    f"data.dataset: {type(self.samples).__name__} gave {described(raw)} as sample "
                    f"{self.samples.keys[number]!r}; expected is a mapping from columns to values"
                )
            there = {name: raw[c] for name, c in self.inputs.columns.items() if raw.get(c) is not None}
            inputs = {name: self._decoded(name, each, training) for name, each in there.items()}
            found = inputs, {name: self._checked(name, raw.get(name)) for name in self.inputs.labels}
            if self.samples.caches(number):
                cache.put(number, found)
        return found

    def _decoded(self, name: str, raw: Any, training: bool) -> Any:
        chopper = self.choppers[name]
        try:
            return chopper.read(raw) if training else chopper.decode(raw)
        except (ValueError, OSError, TypeError) as error:
            raise DataError(f"{name}: {error}") from error

    def _checked(self, column: str, value: Any) -> Any:
        for check in self.checks.get(column, ()) if value is not None else ():
            check(value)
        return value

    def number(self, key: str) -> int:
        """The number of the sample with this key."""
        if not self._numbers:
            self._numbers = {name: number for number, name in enumerate(self.samples.keys)}
        return self._numbers[key]

    def mean_length(self, numbers: Sequence[int], weights: np.ndarray | None = None) -> float:
        """The mean number of tokens of these samples, of 256 of them at most, spread evenly; or, by `weights` (how
        often each is drawn, adding up to 1), of 256 draws. Bad samples do not count: they are never in a batch."""
        if weights is None:
            count = min(len(numbers), 256)
            some = [index * len(numbers) // count for index in range(count)]
        else:
            drawn = np.searchsorted(np.cumsum(weights), (np.arange(256) + 0.5) / 256)
            some = np.minimum(drawn, len(numbers) - 1).tolist()
        lengths = [length for length in (self.length(numbers[index]) for index in some) if length]
        return sum(lengths) / max(len(lengths), 1)

    def length(self, number: int) -> int:
        """The tokens of a sample, without augmentation; 0 for a bad one."""
        try:
            item = self.item(number, training=True)[0]
            return sum(chopper.count(item[name]) for name, chopper in self.choppers.items() if name in item)
        except (ValueError, OSError):
            return 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every sample in every set, (samples, 2), without augmentation: column 0 is the main set (the
        decoder's or only one), column 1 the encoder's. A bad sample has 0."""
        found = np.zeros((len(self.samples), 2), dtype=np.int64)
        for number in range(len(self.samples)):
            try:
                item = self.item(number, training=True)[0]
                counts = {name: chopper.count(item[name]) for name, chopper in self.choppers.items() if name in item}
            except (ValueError, OSError):  # it is counted and named when a batch reads it
                continue
            for name, count in counts.items():
                found[number, int(name in self.inputs.encoded)] += count  # a bool would be a mask
        return found
