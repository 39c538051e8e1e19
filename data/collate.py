"""Samples chopped and packed into the rows of a batch; which of their inputs are predicted, encoded and withheld."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..files.reading import DataError
from ..models.batch import Batch
from ..tokenizers.base import Chopper, Chunk, chopped
from ..tokenizers.chopping.packing import place
from .sampler import SampleIndex

NOTHING = 0.01
"""The share of samples that are read without any input, where each of theirs may be withheld. They teach only the
distribution of the answers, the baseline that attribution measures an input against: few are enough, none too few."""


def dropped_shares(dropout: Mapping[str, float], one_stays: bool = True) -> dict[str, float]:
    """The probability that each input is withheld from a sample that has them all, from the rates at which each is
    drawn; with `one_stays`, before one is put back where all were.

    {"image": 0.75, "sound": 0.6} gives {"image": 0.530, "sound": 0.381}: in 45 of 100 samples both would be, and
    one stays.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    all_of_them = math.prod(dropout.values()) / len(dropout) if one_stays else 0.0
    return {name: NOTHING + (1 - NOTHING) * (share - all_of_them) for name, share in dropout.items()}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How the columns of a data set become the inputs of a model: `Inputs(columns={"camera": "image", "text": "text"})`
    reads the input `camera` off the column `image`."""

    columns: Mapping[str, str]
    """The data column that each input reads, by input."""
    targets: Collection[str] = ()
    """Inputs that a task predicts: never withheld, never dropped for want of room."""
    encoded: Collection[str] = ()
    """Inputs that an encoder reads, in a set of their own beside the decoder's."""
    labels: Collection[str] = ()
    """Columns that tasks read undecoded, such as a class."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """The rate, from 0 to below 1, at which each input is withheld from a sample while training. Where all would be,
    one stays (AV-HuBERT's modality dropout, Shi et al. 2022), except in the share `NOTHING` of the samples. The only
    one beside what a task predicts may be withheld: guidance needs a model that has read much without it."""
    any_number: bool = False
    """In place of `dropout`: of each sample any number of its inputs is withheld while training, each number equally
    often; one stays, as there. The model then knows every subset about as well as any other, which is what the mean
    over all orders in which inputs may be added (Shapley 1953) asks it about (Covert et al. 2023, arXiv:2206.05282)."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """A sample longer than the context is bad (`refuse`), or its last inputs are left out until it fits (`drop`)."""

    @property
    def optional(self) -> tuple[str, ...]:
        """The inputs that may be withheld from a sample: those that no task predicts."""
        return tuple(name for name in self.columns if name not in self.targets)

    @property
    def one_stays(self) -> bool:
        """Whether one of several inputs is put back where all would be withheld."""
        return len(self.optional) > 1 or not self.targets

    @property
    def dropped(self) -> dict[str, float]:
        """The probability that each input is withheld from a sample that has them all, where it is not 0."""
        if self.any_number and self.optional:
            share = (len(self.optional) - self.one_stays) / 2 / len(self.optional)
            return dict.fromkeys(self.optional, NOTHING + (1 - NOTHING) * share)
        found = dropped_shares({name: self.dropout.get(name, 0.0) for name in self.optional}, self.one_stays)
        return {name: share for name, share in found.items() if share}

    def drop(self, present: Sequence[str], every: Sequence[str], random: np.random.Generator) -> list[str]:
        """Draw which of a sample's `present` inputs are withheld. A number is drawn for `every` input, present or not,
        so that an input that only some samples have changes nothing for the others."""
        chances = dict(zip(every, random.random(len(every))))
        if self.any_number and present:
            most = (
                len(present) if random.random() < NOTHING else int(random.integers(len(present) + 1 - self.one_stays))
            )
            return sorted(present, key=chances.__getitem__)[:most]
        shares = [self.dropout.get(name, 0.0) for name in present]
        withheld = [name for name, share in zip(present, shares) if chances[name] < share]
        if present and all(shares):
            if random.random() < NOTHING:
                return list(present)
            if len(withheld) == len(present) and self.one_stays:
                del withheld[random.integers(len(withheld))]
        return withheld


WHOLE = 2**63
"""The seeds of items are whole numbers from 0 to below this."""

Parts = list[tuple[str, Chunk]]
"""One chopped sample: (input, chunk) pairs in the order in which their tokens join the set."""


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Chops samples of at most `context` tokens each and packs them into rows with little padding.

    With `too_long: drop` a sample that is too long loses whole items, the last ones first, never a part of one, never a
    target, and never all of them; else it is bad. `axes` names the set's position axes, `say` is called with notices.
    """

    choppers: Mapping[str, Chopper]
    inputs: Inputs
    context: int
    encoder_context: int = 0
    """The most tokens of a sample that the encoder reads, where there is one."""
    axes: Sequence[str] = ("order",)
    in_time: bool = False
    """Whether a sample's tokens are put in the order of their seconds, not of their inputs."""
    core: int = 0
    """How many tokens of each sample belong to the core itself (class and register tokens)."""
    say: Callable[[str], None] = print
    dropped: Counter = field(default_factory=Counter)
    """How many items of each input were left out so far for want of room."""

    def chop(
        self, item: Mapping[str, Any], key: str, each: SampleIndex, training: bool, only: Collection[str] | None
    ) -> Parts:
        """Chop the decoded inputs `item` of one sample, in the order of the choppers: without those that are withheld
        at random (while `training`, which also augments), those not in `only` (targets are kept), and those that do
        not fit the context. `key` names the sample in messages, `each` seeds what is random. Raises ValueError for a
        bad sample."""
        if not item:
            raise DataError(f"it has none of the inputs ({', '.join(self.choppers)})")
        targets = self.inputs.targets
        present = [name for name in self.choppers if name in item and (only is None or name in {*only, *targets})]
        if not training:
            return self._fitting({name: chopped(name, self.choppers[name], item[name]) for name in present}, key)
        random = np.random.default_rng(tuple(each))
        every = list(self.choppers)
        seeds = dict(zip(every, random.integers(WHOLE, size=len(every)).tolist()))
        withheld = self.inputs.drop([name for name in present if name not in targets], every, random)
        parts = {}
        for name in present:
            if name not in withheld:
                value = self.choppers[name].augment(item[name], random)
                parts[name] = replace(chopped(name, self.choppers[name], value), seed=seeds[name])
        return self._fitting(parts, key)

    def batch(self, samples: Sequence[Parts], rows: str = "packed", **known: Any) -> Batch:
        """Chopped samples as planned sets. Inputs that are `encoded` go into the encoder's set, all others into the
        main set; where there are any, both sets hold one sample a row, the same sample in the same row.

        `rows`: `packed`, several samples a row, or `one_each`, with the padding in front (for generation). `known`:
        further fields of every SetPlan (`labels`, `keys`, `seeds`).
        """
        one_each = range(len(samples)) if rows == "one_each" or self.inputs.encoded else None
        encoder, encoded = None, self.inputs.encoded
        if encoded:
            parts = [[pair for pair in sample if pair[0] in encoded] for sample in samples]
            samples = [[pair for pair in sample if pair[0] not in encoded] for sample in samples]
            encoder = place(parts, self.choppers, self.encoder_context, self.axes, rows=one_each, trim=True,
                            in_time=self.in_time)  # fmt: skip
            encoder = replace(encoder, **known)
        planned = place(samples, self.choppers, self.context, self.axes, rows=one_each, core=self.core, trim=True,
                        right=rows == "one_each", in_time=self.in_time)  # fmt: skip
        return Batch(main=replace(planned, **known), encoder=encoder)

    def _fitting(self, parts: dict[str, Chunk], key: str) -> Parts:
        """The parts that fit together into the contexts of their sets. Raises DataError where none does, or none of
        those that the encoder reads, and as `_within` does."""
        encoded = {name: chunk for name, chunk in parts.items() if name in self.inputs.encoded}
        others = {name: chunk for name, chunk in parts.items() if name not in self.inputs.encoded}
        kept = self._within(encoded, 0, self.encoder_context, key, "encoder's ")
        kept |= self._within(others, self.core, self.context, key)
        if encoded and not kept.keys() & encoded.keys():
            longest = max(chunk.count for chunk in encoded.values())
            room = f"its context of {self.encoder_context}"
            raise DataError(f"what the encoder shall read of it has {longest} tokens, more than {room}")
        read = {name: chunk for name, chunk in parts.items() if name not in self.inputs.targets} or parts
        if parts and not kept.keys() & read.keys():
            longest, whole = max(chunk.count for chunk in read.values()), f"the context of {self.context}"
            predicted = sum(chunk.count for chunk in kept.values())
            room = f"what its {predicted} predicted ones leave of {whole}" if kept else whole
            raise DataError(f"nothing of it fits: {longest} tokens are more than {room}")
        return [(name, chunk) for name, chunk in parts.items() if name in kept]

    def _within(self, parts: dict[str, Chunk], core: int, context: int, key: str, whose: str = "") -> dict[str, Chunk]:
        """The parts that fit into a context together: non-targets are dropped, the last first. Raises DataError where
        the targets alone are too long, and where `too_long` is `refuse`."""
        kept, dropped = dict(parts), {}
        total = whole = core + sum(chunk.count for chunk in parts.values())
        for name in [name for name in reversed(parts) if name not in self.inputs.targets]:
            if total <= context:
                break
            dropped[name] = kept.pop(name).count
            total -= dropped[name]
        room = f"the {whose}context of {context}"
        if total > context:
            named = " and ".join(kept)
            raise DataError(f"its {total} tokens of {named} are more than {room}: enlarge that, or shorten the samples")
        if dropped and kept and self.inputs.too_long == "refuse":
            out = " and ".join(reversed(dropped))
            raise DataError(f"it has {whole} tokens, more than {room}; data.too_long: drop would leave out its {out}")
        for name, count in dropped.items() if kept.keys() - self.inputs.targets else ():
            if not self.dropped[name]:
                out = f"its {name} ({count} tokens) is left out, and so wherever there is no room for it"
                self.say(f"sample {key!r} has {whole} tokens, more than {room}: {out}")
            self.dropped[name] += 1
        return kept
