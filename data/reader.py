"""Decodes samples one by one, and keeps decoded items in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..files.reading import DataError
from ..models.contract import ContractError, described
from ..tokenizers.base import Chopper
from .collate import Inputs
from .samples import Samples
from .skipped import BadSamples

CACHED = 2**30
"""The number of bytes (1 GiB) of decoded items that one cache keeps in memory."""

ITEM_BYTES, TENSOR_BYTES, ARRAY_BYTES = 300, 600, 150
"""The memory overhead in bytes: of an item (for its mappings), of a tensor, and of any other value."""

Item = tuple[Mapping[str, Any], Mapping[str, Any]]
"""The decoded inputs of a sample by input name, and its labels by column: `({"image": array}, {"label": 7})`."""


def memory_of(value: Any) -> int:
    """Returns the approximate memory, in bytes, of a decoded input: an array, a mapping of arrays, or another object,
    which counts as 64 bytes plus the overhead."""
    if isinstance(value, Mapping):
        return ARRAY_BYTES + sum(map(memory_of, value.values()))
    return getattr(value, "nbytes", 64) + (TENSOR_BYTES if isinstance(value, Tensor) else ARRAY_BYTES)


class ItemCache:
    """A cache of items by sample number. Items are added until they do not fit into `bytes`, and are never removed."""

    def __init__(self, bytes: int = CACHED):
        self.free, self.items = bytes, {}

    def get(self, number: int) -> Item | None:
        """Returns the item of this sample. Returns None if it is not cached."""
        return self.items.get(number)

    def put(self, number: int, item: Item) -> None:
        """Adds an item if it fits into the free bytes; otherwise does nothing."""
        size = ITEM_BYTES + sum(map(memory_of, item[0].values()))
        if size <= self.free:
            self.free -= size
            self.items[number] = item


class Reader:
    """Reads and decodes samples by number. `checks` contains, by label column, functions of the tasks that raise
    DataError if a value of the column makes the sample bad."""

    def __init__(
        self, samples: Samples, choppers: Mapping[str, Chopper], inputs: Inputs, bad: BadSamples,
        checks: Mapping[str, Sequence[Callable[[Any], None]]] | None = None,
    ):  # fmt: skip
        self.samples, self.choppers, self.inputs, self.bad, self.checks = samples, choppers, inputs, bad, checks or {}
        self.cache, self.training_cache = ItemCache(CACHED), ItemCache(CACHED)
        self.columns = {*inputs.columns.values(), *inputs.labels}
        """The data columns that are read from each sample."""
        self.differs = any(type(chopper).read is not Chopper.read for chopper in choppers.values())
        """Whether a chopper defines `Chopper.read`. Training then decodes items with `read`, for example only a part of
        a sound, instead of `decode`."""
        self._numbers: dict[str, int] = {}

    def with_bad(self, bad: BadSamples, cache: bool) -> Reader:
        """Returns a copy of the reader with this record of bad samples. `cache`: it shares the caches of this reader;
        otherwise it caches nothing."""
        reader = copy(self)
        reader.bad, reader._numbers = bad, {}
        reader.__dict__.pop("lengths", None)
        if not cache:
            reader.cache = reader.training_cache = ItemCache(0)
        return reader

    def item(self, number: int, training: bool = False) -> Item:
        """Returns (decoded inputs by input name, labels by column) of a sample. With `training`, items are decoded by
        `Chopper.read` instead of `Chopper.decode`. Raises DataError (or OSError) if the sample is bad, and
        ContractError if the data set does not return a mapping."""
        if number in self.bad:
            raise DataError(self.bad[number])
        cache = self.training_cache if training and self.differs else self.cache
        item = cache.get(number)
        if item is None:
            raw = self.samples.row(number, self.columns)
            if not isinstance(raw, Mapping):
                raise ContractError(
                    f"data.dataset: {type(self.samples).__name__} returned {described(raw)} as sample "
                    f"{self.samples.keys[number]!r}; expected: a mapping from columns to values"
                )
            values = {name: raw[c] for name, c in self.inputs.columns.items() if raw.get(c) is not None}
            inputs = {name: self._decoded(name, value, training) for name, value in values.items()}
            item = inputs, {name: self._checked(name, raw.get(name)) for name in self.inputs.labels}
            if self.samples.caches(number):
                cache.put(number, item)
        return item

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
        """Returns the number of the sample with this key."""
        if not self._numbers:
            self._numbers = {name: number for number, name in enumerate(self.samples.keys)}
        return self._numbers[key]

    def mean_length(self, numbers: Sequence[int], weights: np.ndarray | None = None) -> float:
        """Returns the mean number of tokens of the samples with these `numbers`, computed from at most 256 of them,
        spread evenly. With `weights` (the probabilities of the samples), it is computed from 256 draws. Bad samples are
        not counted, because they are never in a batch."""
        if weights is None:
            count = min(len(numbers), 256)
            indices = [index * len(numbers) // count for index in range(count)]
        else:
            drawn = np.searchsorted(np.cumsum(weights), (np.arange(256) + 0.5) / 256)
            indices = np.minimum(drawn, len(numbers) - 1).tolist()
        lengths = [length for length in (self.length(numbers[index]) for index in indices) if length]
        return sum(lengths) / max(len(lengths), 1)

    def length(self, number: int) -> int:
        """Returns the number of tokens of a sample without augmentation. Returns 0 if the sample is bad."""
        try:
            item = self.item(number, training=True)[0]
            return sum(chopper.count(item[name]) for name, chopper in self.choppers.items() if name in item)
        except (ValueError, OSError):
            return 0

    @cached_property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each sample without augmentation, (samples, 2). Column 0 is the main set, column 1
        the set of the encoder. A bad sample has 0 in both columns."""
        lengths = np.zeros((len(self.samples), 2), dtype=np.int64)
        for number in range(len(self.samples)):
            try:
                item = self.item(number, training=True)[0]
                counts = {name: chopper.count(item[name]) for name, chopper in self.choppers.items() if name in item}
            except (ValueError, OSError):  # the sample is reported when a batch reads it
                continue
            for name, count in counts.items():
                lengths[number, int(name in self.inputs.encoded)] += count  # a bool would be a mask
        return lengths
