"""A split of samples, read in batches: each a pure function of (seed, step), packed into rows, with a rule for bad samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from ..models.batch import SetPlan
from ..tokenizers.base import Chopper, Chunk
from ..tokenizers.contract import chopped
from ..tokenizers.files.reading import DataError
from ..tokenizers.packing import place
from .sampler import Place, SimilarLengths
from .samples import Samples

CACHED = 2**30
"""Bytes of decoded items that a split keeps in memory, so that small data sets are read and decoded once."""

WHOLE = 2**63
"""Seeds of items are whole numbers below this."""

NOTHING = 0.01
"""The share of the samples that are read without any input where each of theirs may be withheld. They teach only how the
answers are spread, which is what the worth of an input is measured against: few are enough, and none are too few."""


def withheld_shares(dropout: Mapping[str, float]) -> dict[str, float]:
    """How often each input is withheld from a sample that has them all, given the chances before one of them is kept.

    {"image": 0.75, "sound": 0.6} gives {"image": 0.530, "sound": 0.381}: in 45 of 100 samples both would be, and one stays.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    all_of_them = math.prod(dropout.values()) / len(dropout)
    return {name: NOTHING + (1 - NOTHING) * (share - all_of_them) for name, share in dropout.items()}


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How the columns of a data set become inputs of a set."""

    columns: Mapping[str, str]
    """The data column that each input reads."""
    targets: Collection[str] = ()
    """Inputs that a task predicts: never dropped."""
    encoded: Collection[str] = ()
    """Inputs that an encoder reads, in a set of their own beside the decoder's."""
    labels: Collection[str] = ()
    """Columns that tasks read as they are."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """How often chance withholds each input from a sample while training. Where it would withhold all, one of them stays
    (AV-HuBERT's modality dropout, Shi et al. 2022), except in `NOTHING` of the samples."""
    bad_share: float = 0.0
    """The share of bad samples past which the run stops."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a sample that does not fit the context: it is bad, or the last of its inputs are left out."""

    @property
    def withheld(self) -> dict[str, float]:
        """How often each input is withheld from a sample that has them all; only those that are."""
        found = withheld_shares(
            {name: self.dropout.get(name, 0.0) for name in self.columns if name not in self.targets}
        )
        return {name: share for name, share in found.items() if share}

    def __post_init__(self):
        if not 0 <= self.bad_share <= 1:
            raise DataError(f"data.bad_share must be a share from 0 to 1, not {self.bad_share:g}")


@dataclass(frozen=True, kw_only=True)
class SampleSplit:
    """Samples of at most `context` tokens each, packed into rows that waste little.

    A sample that cannot be read, that has none of the inputs, or that does not fit the context, is *bad*: the next good one
    takes its place while training, an evaluation leaves it out; it is counted and named. With `too_long: drop` a sample that
    is too long loses whole spans, the last ones first, never a part of one, never a target, and never all of them.
    """

    samples: Samples
    name: str
    choppers: Mapping[str, Chopper]
    mixing: Mixing
    context: int
    encoder_context: int = 0
    """The most tokens of a sample that the encoder reads, where there is one."""
    budget: int | None = None
    """Places of a global training batch, padding included, on its fuller side: its samples are of similar length. None: as
    many samples as `plan` is asked for, whatever their lengths."""
    axes: Sequence[str] = ("order",)
    own: int = 0
    checks: Mapping[str, Sequence[Callable[[Any], None]]] = field(default_factory=dict)
    """What the tasks demand of each column of labels: raises DataError for a value that makes its sample a bad one."""
    say: Callable[[str], None] = print
    ahead: ClassVar[bool] = True
    """Whether batches are worth planning ahead of time."""
    bad: dict[int, str] = field(default_factory=dict)
    """What is wrong with each bad sample that was met, by its number."""
    shortened: Counter = field(default_factory=Counter)
    """How many spans of each input were dropped for want of room."""
    _items: dict[int, tuple] = field(default_factory=dict, repr=False)
    _size: list[int] = field(default_factory=lambda: [0], repr=False)

    def __post_init__(self):
        if not len(self.samples):
            raise DataError(f"{self.name} holds no samples")

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.samples)

    @cached_property
    def source(self) -> str:
        """What identifies the samples: their keys, in order, and what they hold."""
        return self.samples.fingerprint(self.mixing.labels)

    # ------------------------------------------------------------------------------------------------ the plan

    def plan(self, seed: int, step: int, size: int) -> list[Place]:
        """The samples of one global training batch. Every epoch reads them all once, in a random order."""
        if self.budget is not None:
            return self._batches.places(seed, step)
        count = len(self.samples)
        places = []
        for number in range(step * size, (step + 1) * size):
            epoch, index = divmod(number, count)
            places.append(Place(seed, epoch, int(self._order(seed, epoch)[index])))
        return places

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        known = self.__dict__.setdefault("_orders", {})
        if (seed, epoch) not in known:
            while len(known) > 1:
                known.pop(next(iter(known)))
            known[seed, epoch] = np.random.default_rng([seed, epoch]).permutation(len(self.samples))
        return known[seed, epoch]

    @cached_property
    def _batches(self) -> SimilarLengths:
        return SimilarLengths(self.lengths, self.budget)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every sample in every set, (samples, sets), as they are without augmentation; 0 for a bad one."""
        found = np.zeros((len(self.samples), 2), dtype=np.int64)
        for number in range(len(self.samples)):
            try:
                item = self.item(number)[0]
                counts = {name: chopper.count(item[name]) for name, chopper in self.choppers.items() if name in item}
            except (ValueError, OSError):  # it is named when its turn comes
                continue
            for name, count in counts.items():
                found[number, int(name in self.mixing.encoded)] += count  # a bool would be a mask
        return found

    def all(self) -> list[Place]:
        """Every sample once: what an evaluation reads. Where rows hold one sample each, from the shortest to the longest."""
        numbers = range(len(self.samples))
        if self.mixing.encoded:
            numbers = np.lexsort(self.lengths.T).tolist()
        return [Place(0, 0, number) for number in numbers]

    def first(self, number: int) -> list[Place]:
        """Some samples, spread evenly over the split: for a glance at all of it."""
        count = len(self.samples)
        return [Place(0, 0, index * count // number) for index in range(number)] if number < count else self.all()

    # ----------------------------------------------------------------------------------------------- the batch

    def batch(
        self, places: Iterable[Place], *, training: bool = False, inputs: Collection[str] | None = None,
        rows: str = "packed", replaced: Mapping[str, Any] | None = None,
    ) -> dict[str, SetPlan]:  # fmt: skip
        """The samples at these places as planned sets, by the name of the core that reads each; only their `inputs` (and
        targets) where these are named. What is `encoded` stands in the set `encoder`, one sample a row, and so does
        everything then: a row of one set beside the same row of the other. All else is in `main`.

        `rows`: `packed`, or `one_each` with the padding in front (for generation); `replaced` are items that stand in for
        the samples' own, such as an empty text where one is to be written.
        """
        read = [sample for each in places if (sample := self._sample(each, training, inputs, replaced or {}))]
        chopped, numbers = [parts for parts, _, _ in read], [number for _, number, _ in read]
        labels = {name: [self.item(number)[1][name] for number in numbers] for name in self.mixing.labels}
        known = {"labels": labels, "keys": tuple(self.samples.keys[number] for number in numbers),
                 "seeds": tuple(seeds for *_, seeds in read)}  # fmt: skip
        one_each = range(len(read)) if rows == "one_each" or self.mixing.encoded else None
        sets = {}
        if self.mixing.encoded:
            parts = [[pair for pair in sample if pair[0] in self.mixing.encoded] for sample in chopped]
            chopped = [[pair for pair in sample if pair[0] not in self.mixing.encoded] for sample in chopped]
            planned = place(parts, self.choppers, self.encoder_context, self.axes, rows=one_each, trim=True)
            sets["encoder"] = replace(planned, **known)
        planned = place(chopped, self.choppers, self.context, self.axes, rows=one_each, core=self.own, trim=True,
                        right=rows == "one_each")  # fmt: skip
        return sets | {"main": replace(planned, **known)}

    def number(self, key: str) -> int:
        """The number of the sample of this key."""
        known = self.__dict__.setdefault("_numbers", {})
        if not known:
            known.update({name: number for number, name in enumerate(self.samples.keys)})
        return known[key]

    def _sample(
        self, each: Place, training: bool, inputs, replaced
    ) -> tuple[list[tuple[str, Chunk]], int, tuple[int, ...]] | None:
        """The chopped parts of a sample that shall be read, and its number; None for a bad one outside training."""
        number = each.number
        for _ in range(len(self.samples)):
            try:
                place = each._replace(number=number)
                return self.chop(place, training, inputs, replaced), number, tuple(place)
            except (ValueError, OSError, RuntimeError) as error:  # a tokenizer of the user's own may raise any of these
                self.note(number, error, training)
            if not training:
                return None
            number = (number + 1) % len(self.samples)
        raise DataError(f"{self.name}: not one sample can be read; the first: {self.bad[0]}")

    def chop(self, each: Place, training: bool = False, inputs=None, replaced=None) -> list[tuple[str, Chunk]]:
        """(input, chunk) pairs of a sample, without the inputs that chance withholds and what does not fit the context.

        Raises ValueError for a bad sample.
        """
        item = {**self.item(each.number)[0], **(replaced or {})}
        if not item:
            raise DataError(f"it has none of the inputs ({', '.join(self.choppers)})")
        targets = self.mixing.targets
        present = [name for name in self.choppers if name in item and (inputs is None or name in {*inputs, *targets})]
        if not training:
            parts = {name: chopped(name, self.choppers[name], item[name]) for name in present}
            return self._fitting(parts, self.samples.keys[each.number])
        random = np.random.default_rng(tuple(each))
        seeds = dict(zip(self.choppers, random.integers(WHOLE, size=len(self.choppers)).tolist()))
        withheld = self._withheld([name for name in present if name not in targets], random)
        parts = {}
        for name in present:
            if name not in withheld:
                value = self.choppers[name].augment(item[name], random)
                parts[name] = replace(chopped(name, self.choppers[name], value), seed=seeds[name])
        return self._fitting(parts, self.samples.keys[each.number])

    def _withheld(self, inputs: Sequence[str], random: np.random.Generator) -> list[str]:
        """Those of a sample's inputs that chance withholds, as `Mixing.dropout` says."""
        chances = dict(zip(self.choppers, random.random(len(self.choppers))))
        shares = [self.mixing.dropout.get(name, 0.0) for name in inputs]
        withheld = [name for name, share in zip(inputs, shares) if chances[name] < share]
        if inputs and all(shares):
            if random.random() < NOTHING:
                return list(inputs)
            if len(withheld) == len(inputs):
                del withheld[random.integers(len(withheld))]
        return withheld

    def _fitting(self, parts: dict[str, Chunk], key: str) -> list[tuple[str, Chunk]]:
        """The parts that fit together into the contexts of their sets."""
        encoded = {name: chunk for name, chunk in parts.items() if name in self.mixing.encoded}
        others = {name: chunk for name, chunk in parts.items() if name not in self.mixing.encoded}
        kept = self._within(encoded, 0, self.encoder_context, key, "encoder's ") | self._within(
            others, self.own, self.context, key
        )
        if encoded and not kept.keys() & encoded.keys():
            longest = max(chunk.count for chunk in encoded.values())
            raise DataError(
                f"what the encoder shall read of it has {longest} tokens, more than its context of {self.encoder_context}"
            )
        if parts and not kept:
            longest = max(chunk.count for chunk in parts.values())
            raise DataError(f"nothing of it fits: {longest} tokens are more than the context of {self.context}")
        return [(name, chunk) for name, chunk in parts.items() if name in kept]

    def _within(self, parts: dict[str, Chunk], own: int, context: int, key: str, whose: str = "") -> dict[str, Chunk]:
        """The parts that fit a context together: the last spans that are no target go first."""
        kept, dropped = dict(parts), {}
        total = whole = own + sum(chunk.count for chunk in parts.values())
        for name in [name for name in reversed(parts) if name not in self.mixing.targets]:
            if total <= context:
                break
            dropped[name] = kept.pop(name).count
            total -= dropped[name]
        if total > context:
            raise DataError(f"its targets have {total} tokens, more than the {whose}context of {context}")
        if dropped and kept and self.mixing.too_long == "refuse":
            raise DataError(
                f"it has {whole} tokens, more than the {whose}context of {context}; data.too_long: drop would leave out its "
                f"{' and '.join(reversed(dropped))}"
            )
        for name, count in dropped.items() if kept else ():
            if not self.shortened[name]:
                self.say(
                    f"{self.name}: sample {key!r} has {whole} tokens, more than the {whose}context of {context}: its "
                    f"{name} ({count} tokens) is left out, and so wherever there is no room for it"
                )
            self.shortened[name] += 1
        return kept

    def item(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The decoded inputs of a sample by input name, and its labels by column. Raises DataError when it is bad."""
        if number in self.bad:
            raise DataError(self.bad[number])
        if number in self._items:
            return self._items[number]
        raw, inputs = self.samples[number], {}
        for name, column in self.mixing.columns.items():
            if raw.get(column) is not None:
                try:
                    inputs[name] = self.choppers[name].decode(raw[column])
                except (ValueError, OSError, TypeError) as error:
                    raise DataError(f"{name}: {error}") from error
        found = inputs, {name: self._label(name, raw.get(name)) for name in self.mixing.labels}
        size = sum(getattr(value, "nbytes", 64) for value in inputs.values())
        if self._size[0] + size <= CACHED:
            self._size[0] += size
            self._items[number] = found
        return found

    def _label(self, name: str, value: Any) -> Any:
        for check in self.checks.get(name, ()) if value is not None else ():
            check(value)
        return value

    def note(self, number: int, error: Exception, training: bool = False) -> None:
        """Count and name a bad sample. Raises DataError when there are more than `bad_share` allows."""
        if number in self.bad:
            return
        self.bad[number] = str(error)
        key = self.samples.keys[number]
        count, instead = len(self.bad), "another is read instead" if training else "left out"
        so_far = f"{count} of {len(self.samples)} samples so far"
        if count / len(self.samples) > self.mixing.bad_share:
            raise DataError(
                f"{self.name}: sample {key!r} is bad: {error} ({so_far}; data.bad_share allows a share of "
                f"{self.mixing.bad_share:g})"
            ) from error
        self.say(f"{self.name}: sample {key!r} is bad and {instead}: {error}{f' ({so_far})' if count > 1 else ''}")
