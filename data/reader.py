"""Decodes samples one by one. Records bad samples, samples that a task excludes from its loss, and inputs that are
dropped because they do not fit into the context."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..files.reading import DataError
from ..models.contract import ContractError, described
from ..tokenizers.base import Chopper
from .collate import Inputs
from .processes import Processes
from .samples import Samples

FIRST_WARNINGS = 10
"""The number of warnings of one kind that are always printed. Afterwards, a warning is printed only when their number
has doubled."""


def is_printed(count: int) -> bool:
    """Returns whether the warning number `count` of one kind is printed: the numbers 1 to 10, then 20, 40, 80, ..."""
    times, rest = divmod(count, FIRST_WARNINGS)
    return count <= FIRST_WARNINGS or (rest == 0 and times & (times - 1) == 0)


class BadSamples(dict[int, str]):
    """The errors of the bad samples that were read so far, by sample number: `{17: "image: a.png is cut short"}`.

    Training replaces a bad sample by the next good sample; an evaluation skips it. `share` is the share of the samples
    of the split that may be bad, from 0 to 1; other values raise DataError. `keys` contains the keys of all samples,
    for messages. `say` is called with the text of each warning that is printed (see `is_printed`).
    """

    def __init__(self, split: str, keys: Sequence[str], share: float, say: Callable[[str], None] = print):
        super().__init__()
        if not 0 <= share <= 1:
            raise DataError(f"data.bad_share must be a share from 0 to 1, not {share:g}")
        self.split, self.sample_keys, self.share, self.say = split, keys, share, say

    def note(self, number: int, error: Exception, training: bool = False) -> None:
        """Records and reports a bad sample if it is not yet recorded. Raises DataError if more samples are now bad than
        `share` allows."""
        if number in self:
            return
        self[number] = str(error)
        key, total = self.sample_keys[number], len(self.sample_keys)
        count, action = len(self), "replaced by the next sample" if training else "skipped"
        so_far = f"{count} of {total} samples so far"
        if count / total > self.share:
            allowed = f"data.bad_share allows a share of {self.share:g}"
            raise DataError(f"{self.split}: sample {key!r} is bad: {error} ({so_far}; {allowed})") from error
        if is_printed(count):
            following = f"; the next warning follows at {2 * count}" if count >= FIRST_WARNINGS else ""
            counted = f" ({so_far}{following})" if count > 1 else ""
            self.say(f"{self.split}: sample {key!r} is bad and {action}: {error}{counted}")

    def remember(self, errors: Mapping[int, str]) -> None:
        """Adds the bad samples that a checkpoint recorded, so that the share covers the run from its start."""
        if errors:
            self.update(errors)
            self.say(f"{self.split}: {len(errors):,} bad samples are known from the checkpoint")

    def check(self, processes: Processes) -> None:
        """Raises DataError if all processes together have read more bad samples than `share` allows. Every process must
        call this method."""
        if processes.world_size == 1 or not processes.agree([len(self)])[0]:
            return
        numbers, total = set(processes.gathered(list(self))), len(self.sample_keys)
        if len(numbers) / total > self.share:
            allowed = f"data.bad_share allows a share of {self.share:g}"
            raise DataError(f"{self.split}: {len(numbers)} of {total} samples are bad, {allowed}")


class LeftOut(dict[str, dict[str, str]]):
    """The reasons why tasks excluded samples from their loss, by task name and sample key: `{"text": {"a.wav": "3
    symbols need 5 tokens, but its sound has 2"}}`. `say` is called with the text of each warning that is printed (see
    `is_printed`)."""

    def __init__(self, say: Callable[[str], None] = print):
        super().__init__()
        self.say = say

    def note(self, task: str, samples: Mapping[str, str]) -> None:
        """Records and reports the samples that a task excluded from the loss of a batch. `samples` maps keys to
        reasons."""
        reasons = self.setdefault(task, {})
        for key, reason in samples.items():
            if key not in reasons:
                reasons[key] = reason
                if is_printed(len(reasons)):
                    self.say(f"{key} cannot be aligned and is excluded from the loss: {reason} ({len(reasons)} so far)")


Events = list[tuple[str, tuple[Any, ...]]]
"""Notes on skipped data, in order: the name of a method of `Skipped`, and its arguments."""


@dataclass(frozen=True)
class Skipped:
    """The samples and inputs of a split that were not used so far. Notes are made with the methods `note_...`."""

    bad: BadSamples
    """The samples that cannot be read or do not fit into the context."""
    left_out: LeftOut
    """The samples that a task excluded from its loss."""
    dropped: Counter[str]
    """By input, the number of items that were dropped because they do not fit into the context."""
    absent: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By number of the sample, the inputs that it lacks. Samples with all inputs, and samples of training, are not
    here."""

    @classmethod
    def of(
        cls, split: str, keys: Sequence[str] = (), bad_share: float = 1.0, say: Callable[[str], None] = print
    ) -> Skipped:
        """Returns an empty record. `keys` contains the keys of all samples; it is empty for a stream, in which nothing
        is skipped. `bad_share` is the share of the samples, 0 to 1, that may be bad."""
        return cls(BadSamples(split, keys, bad_share, say), LeftOut(say), Counter())

    def note_bad(self, number: int, error: Exception, training: bool = False) -> None:
        """See `BadSamples.note`."""
        self.bad.note(number, error, training)

    def note_left_out(self, task: str, samples: Mapping[str, str]) -> None:
        """See `LeftOut.note`."""
        self.left_out.note(task, samples)

    def note_absent(self, number: int, names: tuple[str, ...]) -> None:
        """Records the inputs that a sample lacks."""
        self.absent[number] = names

    def note_dropped(self, name: str, text: str) -> None:
        """Counts an item of the input `name` that was dropped, and reports the first one with the sentence `text`."""
        if not self.dropped[name]:
            self.bad.say(f"{self.bad.split}: {text}")
        self.dropped[name] += 1

    def replay(self, events: Events) -> None:
        """Makes the notes that a `Recorder` recorded. Raises DataError if more samples are now bad than allowed."""
        for name, arguments in events:
            getattr(self, name)(*arguments)

    def everywhere(self, processes: Processes) -> Skipped:
        """Returns the samples and inputs that any process has skipped. Every process must call this method. A bad or
        left-out sample that several processes have read counts once; the numbers of dropped items are added."""
        count = self.dropped.total() + len(self.bad) + sum(map(len, self.left_out.values()))
        if processes.world_size == 1 or not processes.agree([count])[0]:
            return self
        total = Skipped.of(self.bad.split, self.bad.sample_keys, say=self.bad.say)
        for bad, left_out, dropped in processes.gathered([(dict(self.bad), dict(self.left_out), self.dropped)]):
            total.bad.update(bad)
            total.dropped.update(dropped)
            for task, keys in left_out.items():
                total.left_out.setdefault(task, {}).update(keys)
        return total

    def counts(self) -> dict[str, int]:
        """Returns the number of bad samples (`bad`) and of dropped items (`without_room`). Empty for a stream."""
        return {"bad": len(self.bad), "without_room": self.dropped.total()} if self.bad.sample_keys else {}

    def lines(self) -> list[str]:
        """Returns one sentence about the bad samples and one about the dropped items, each only if there are any."""
        total = len(self.bad.sample_keys)
        return [f"{self.bad.split}: {len(self.bad):,} of {total:,} samples are bad"] * bool(self.bad) + self.shortened()

    def shortened(self) -> list[str]:
        """Returns one sentence with the number of items of each input that were dropped because they do not fit into
        the context, in a list; an empty list if there are none."""
        dropped = [f"{name} of {count:,}" for name, count in self.dropped.items()]
        problem = "inputs dropped because they do not fit into the context"
        return [f"{self.bad.split}: {problem}: {', '.join(dropped)} samples"] * bool(dropped)


class TooManyBadError(DataError):
    """A `Recorder` has recorded more bad samples than the split allows."""


@dataclass(frozen=True)
class Recorder(Skipped):
    """Records notes instead of reporting them, where batches are read ahead: they are made (`Skipped.replay`) when the
    batch is used. `bad` contains the samples that are known to be bad; recorded ones are not added. Raises
    TooManyBadError if the recorded samples are more than the split allows."""

    allowed: float = math.inf
    """The number of samples that may be recorded as bad for one request."""
    events: Events = field(default_factory=list)

    @classmethod
    def of(cls, bad: BadSamples) -> Recorder:
        """Returns an empty recorder that knows the same bad samples."""
        known = BadSamples(bad.split, (), bad.share, silent)
        known.update(bad)
        return cls(known, LeftOut(silent), Counter(), allowed=bad.share * len(bad.sample_keys) - len(bad))

    def note_bad(self, number: int, error: Exception, training: bool = False) -> None:
        if number in self.bad:
            return
        self.events.append(("note_bad", (number, DataError(str(error)), training)))
        if len({arguments[0] for name, arguments in self.events if name == "note_bad"}) > self.allowed:
            raise TooManyBadError(str(error))

    def note_left_out(self, task: str, samples: Mapping[str, str]) -> None:
        self.events.append(("note_left_out", (task, dict(samples))))

    def note_absent(self, number: int, names: tuple[str, ...]) -> None:
        self.events.append(("note_absent", (number, names)))

    def note_dropped(self, name: str, text: str) -> None:
        self.events.append(("note_dropped", (name, text)))

    def taken(self) -> Events:
        """Returns the events, and forgets them."""
        events = list(self.events)
        self.events.clear()
        return events


def silent(text: str) -> None:
    """Prints nothing."""


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
