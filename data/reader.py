"""Samples decoded one by one, and what cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

TOLD = 10
"""So many of a kind are told one by one; from then on one each time that their number has doubled."""


def worth_telling(count: int) -> bool:
    """Whether the so-manieth of a kind is told: `[1, 2, ..., 10, 20, 40, 80, ...]` are."""
    times, rest = divmod(count, TOLD)
    return count <= TOLD or (rest == 0 and times & (times - 1) == 0)


class BadSamples(dict[int, str]):
    """What is wrong with each bad sample that was met, by its number: `{17: "image: a.png is cut short"}`.

    While training the next good sample takes the place of a bad one, an evaluation leaves it out. `share` is the
    share of the split's samples that may be bad (0 to 1; raises DataError for another); `keys` names every sample in
    messages; `say` is called with a notice of the first ten, and of one each time that their number has doubled.
    """

    def __init__(self, split: str, keys: Sequence[str], share: float, say: Callable[[str], None] = print):
        super().__init__()
        if not 0 <= share <= 1:
            raise DataError(f"data.bad_share must be a share from 0 to 1, not {share:g}")
        self.split, self.keys_of_all, self.share, self.say = split, keys, share, say

    def note(self, number: int, error: Exception, training: bool = False) -> None:
        """Count and report a bad sample, the first time that it is met. Raises DataError when there are more than
        `share` allows."""
        if number in self:
            return
        self[number] = str(error)
        key, total = self.keys_of_all[number], len(self.keys_of_all)
        count, instead = len(self), "another is read instead" if training else "left out"
        so_far = f"{count} of {total} samples so far"
        if count / total > self.share:
            allowed = f"data.bad_share allows a share of {self.share:g}"
            raise DataError(f"{self.split}: sample {key!r} is bad: {error} ({so_far}; {allowed})") from error
        if worth_telling(count):
            more = f"; the next is told at {2 * count}" if count >= TOLD else ""
            told = f" ({so_far}{more})" if count > 1 else ""
            self.say(f"{self.split}: sample {key!r} is bad and {instead}: {error}{told}")

    def remember(self, known: Mapping[int, str]) -> None:
        """Take over the bad samples that the run met before it was stopped, so that their share is that of the whole
        run."""
        if known:
            self.update(known)
            self.say(f"{self.split}: {len(known):,} of its samples are known to be bad")

    def check(self, processes: Processes) -> None:
        """Raises DataError where all processes together have met more bad samples than `share` allows; every process
        must call it."""
        if processes.world_size == 1 or not processes.agree([len(self)])[0]:
            return
        found, total = set(processes.gathered(list(self))), len(self.keys_of_all)
        if len(found) / total > self.share:
            allowed = f"data.bad_share allows a share of {self.share:g}"
            raise DataError(f"{self.split}: {len(found)} of {total} samples are bad, {allowed}")


class LeftOut(dict[str, dict[str, str]]):
    """Why tasks left samples out of their loss, by task and sample key: `{"text": {"a.wav": "3 symbols need 5 tokens,
    but its sound has 2"}}`. `say` is called with a notice of the first ten, and of one each time that their number has
    doubled."""

    def __init__(self, say: Callable[[str], None] = print):
        super().__init__()
        self.say = say

    def note(self, task: str, found: Mapping[str, str]) -> None:
        """Count and report samples (key: why) that a task has left out of a batch."""
        known = self.setdefault(task, {})
        for key, why in found.items():
            if key not in known:
                known[key] = why
                if worth_telling(len(known)):
                    self.say(f"{key} cannot be aligned and is left out: {why} ({len(known)} so far)")


@dataclass(frozen=True)
class Skipped:
    """What of a split was not read, or left out of a loss, so far."""

    bad: BadSamples
    """The samples that cannot be used."""
    left_out: LeftOut
    """The samples that a task left out of its loss."""
    dropped: Counter[str]
    """How many items of each input were left out for want of room."""

    @classmethod
    def of(
        cls, split: str, keys: Sequence[str] = (), bad_share: float = 1.0, say: Callable[[str], None] = print
    ) -> Skipped:
        """An empty record. `keys` are the names of all samples (none for a stream, of which all is read), `bad_share`
        the share of them that may be bad."""
        return cls(BadSamples(split, keys, bad_share, say), LeftOut(say), Counter())

    def everywhere(self, processes: Processes) -> Skipped:
        """The same of all processes together, which all must ask for it; a sample that several met counts once."""
        mine = self.dropped.total() + len(self.bad) + sum(map(len, self.left_out.values()))
        if processes.world_size == 1 or not processes.agree([mine])[0]:
            return self
        found = Skipped.of(self.bad.split, self.bad.keys_of_all, say=self.bad.say)
        for bad, left_out, dropped in processes.gathered([(dict(self.bad), dict(self.left_out), self.dropped)]):
            found.bad.update(bad)
            found.dropped.update(dropped)
            for task, keys in left_out.items():
                found.left_out.setdefault(task, {}).update(keys)
        return found

    def counts(self) -> dict[str, int]:
        """How many samples were `bad`, how many items were `without_room`; empty for a stream."""
        return {"bad": len(self.bad), "without_room": self.dropped.total()} if self.bad.keys_of_all else {}

    def lines(self) -> list[str]:
        """These counts in a sentence each, where they are not 0."""
        total = len(self.bad.keys_of_all)
        return [f"{self.bad.split}: {len(self.bad):,} of {total:,} samples are bad"] * bool(self.bad) + self.shortened()

    def shortened(self) -> list[str]:
        """What was left out for want of room, in a sentence; empty where nothing was."""
        dropped = [f"{name} of {count:,}" for name, count in self.dropped.items()]
        return [f"{self.bad.split}: left out for want of room: {', '.join(dropped)} samples"] * bool(dropped)


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
