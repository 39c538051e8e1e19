"""Data of a split that cannot be used: counted and named in messages; too many bad samples stop the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..tokenizers.files.reading import DataError
from .processes import Processes

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
class Unread:
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
    ) -> Unread:
        """An empty record. `keys` are the names of all samples (none for a stream, of which all is read), `bad_share`
        the share of them that may be bad."""
        return cls(BadSamples(split, keys, bad_share, say), LeftOut(say), Counter())

    def everywhere(self, processes: Processes) -> Unread:
        """The same of all processes together, which all must ask for it; a sample that several met counts once."""
        mine = self.dropped.total() + len(self.bad) + sum(map(len, self.left_out.values()))
        if processes.world_size == 1 or not processes.agree([mine])[0]:
            return self
        found = Unread.of(self.bad.split, self.bad.keys_of_all, say=self.bad.say)
        for bad, left_out, dropped in processes.gathered([(dict(self.bad), dict(self.left_out), self.dropped)]):
            found.bad.update(bad)
            found.dropped.update(dropped)
            for task, keys in left_out.items():
                found.left_out.setdefault(task, {}).update(keys)
        return found

    def counts(self) -> dict[str, int]:
        """How many samples were `bad`, how many items were `without_room`; empty for a stream."""
        return {"bad": len(self.bad), "without_room": self.dropped.total()} if self.bad.keys_of_all else {}

    def told(self) -> list[str]:
        """These counts in a sentence each, where they are not 0."""
        total = len(self.bad.keys_of_all)
        return [f"{self.bad.split}: {len(self.bad):,} of {total:,} samples are bad"] * bool(self.bad) + self.shortened()

    def shortened(self) -> list[str]:
        """What was left out for want of room, in a sentence; empty where nothing was."""
        dropped = [f"{name} of {count:,}" for name, count in self.dropped.items()]
        return [f"{self.bad.split}: left out for want of room: {', '.join(dropped)} samples"] * bool(dropped)
