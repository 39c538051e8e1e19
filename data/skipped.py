"""The record of what a split has skipped: bad samples, samples that a task excludes from its loss, and inputs that do
not fit. `SampleSplit._sample` (`split.py`) skips bad samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..files.reading import DataError
from .processes import Processes

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

    def note(self, number: int, error: str, training: bool = False) -> None:
        """Records and reports a bad sample if it is not yet recorded. Raises DataError if more samples are now bad than
        `share` allows."""
        if number in self:
            return
        self[number] = error
        key, total = self.sample_keys[number], len(self.sample_keys)
        count, action = len(self), "replaced by the next sample" if training else "skipped"
        so_far = f"{count} of {total} samples so far"
        if count / total > self.share:
            allowed = f"data.bad_share allows a share of {self.share:g}"
            raise DataError(f"{self.split}: sample {key!r} is bad: {error} ({so_far}; {allowed})")
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


class Event:
    """A note on skipped data."""

    is_bad: ClassVar[bool] = False
    """Whether the note is on a sample that cannot be read."""

    def apply(self, skipped: Skipped) -> None:
        """Records the note, and reports it if it is one of the first of its kind. Raises DataError if more samples are
        now bad than the split allows."""
        raise NotImplementedError


@dataclass(frozen=True)
class IsBad(Event):
    """The sample `number` cannot be read, or does not fit into the context."""

    is_bad: ClassVar[bool] = True
    number: int
    error: str
    training: bool = False

    def apply(self, skipped):
        skipped.bad.note(self.number, self.error, self.training)


@dataclass(frozen=True)
class IsLeftOut(Event):
    """A task excluded samples from the loss of a batch. `samples` maps keys to reasons."""

    task: str
    samples: Mapping[str, str]

    def apply(self, skipped):
        skipped.left_out.note(self.task, self.samples)


@dataclass(frozen=True)
class Lacks(Event):
    """The sample `number` lacks the inputs `names`."""

    number: int
    names: tuple[str, ...]

    def apply(self, skipped):
        skipped.absent[self.number] = self.names


@dataclass(frozen=True)
class HasNoRoom(Event):
    """An item of the input `name` does not fit into the context. The sentence `text` reports the first one."""

    name: str
    text: str

    def apply(self, skipped):
        if not skipped.dropped[self.name]:
            skipped.bad.say(f"{skipped.bad.split}: {self.text}")
        skipped.dropped[self.name] += 1


@dataclass(frozen=True)
class Skipped:
    """The samples and inputs of a split that were not used so far."""

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

    def note(self, *events: Event) -> None:
        """Records and reports notes; see `Event.apply`."""
        for event in events:
            event.apply(self)

    def everywhere(self, processes: Processes) -> Skipped:
        """Returns the samples and inputs that any process has skipped. Every process must call this method. A bad or
        left-out sample that several processes have read counts once; the numbers of dropped items are added."""
        count = self.dropped.total() + len(self.bad) + sum(map(len, self.left_out.values()))
        return self if processes.world_size == 1 or not processes.agree([count])[0] else self._gathered(processes)

    def _gathered(self, processes: Processes) -> Skipped:
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
    """Records notes instead of reporting them, where batches are read ahead: they are made (`Skipped.note`) when the
    batch is used. `bad` contains the samples that are known to be bad; recorded ones are not added. Raises
    TooManyBadError if the recorded samples are more than the split allows."""

    allowed: float = math.inf
    """The number of samples that may be recorded as bad for one request."""
    events: list[Event] = field(default_factory=list)

    @classmethod
    def of(cls, bad: BadSamples) -> Recorder:
        """Returns an empty recorder that knows the same bad samples."""
        known = BadSamples(bad.split, (), bad.share, silent)
        known.update(bad)
        return cls(known, LeftOut(silent), Counter(), allowed=bad.share * len(bad.sample_keys) - len(bad))

    def note(self, *events: Event) -> None:
        for event in events:
            if not event.is_bad:
                self.events.append(event)
            elif event.number not in self.bad:
                self.events.append(event)
                if len({each.number for each in self.events if each.is_bad}) > self.allowed:
                    raise TooManyBadError(event.error)

    def taken(self) -> list[Event]:
        """Returns the events, and forgets them."""
        events = list(self.events)
        self.events.clear()
        return events


def silent(text: str) -> None:
    """Prints nothing."""
