"""Chops samples and packs them into the rows of a batch; settings for inputs that are predicted, encoded or dropped."""

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
"""The share of training samples from which all inputs are dropped, if each of them can be dropped. These samples teach
only the distribution of the answers, which is the baseline of attribution; a few are enough."""


def dropped_shares(dropout: Mapping[str, float], one_stays: bool = True) -> dict[str, float]:
    """Returns the probability that each input is dropped from a sample that has all of them. `dropout` contains the
    rates at which they are drawn. With `one_stays`, one input is put back if all are drawn.

    {"image": 0.75, "sound": 0.6} becomes {"image": 0.530, "sound": 0.381}: both are drawn for 45 of 100 samples, and
    one of them is put back.
    """
    if not dropout or not all(dropout.values()):
        return dict(dropout)
    put_back = math.prod(dropout.values()) / len(dropout) if one_stays else 0.0
    return {name: NOTHING + (1 - NOTHING) * (share - put_back) for name, share in dropout.items()}


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Maps the columns of a data set to the inputs of a model. With `Inputs(columns={"camera": "image", "text":
    "text"})` the input `camera` reads the column `image`."""

    columns: Mapping[str, str]
    """The data column of each input, by input name."""
    targets: Collection[str] = ()
    """Inputs that a task predicts. They are never dropped, even if a sample does not fit into the context."""
    encoded: Collection[str] = ()
    """Inputs that the encoder reads, in a separate set from those of the decoder."""
    labels: Collection[str] = ()
    """Columns that tasks read without decoding, such as a class."""
    dropout: Mapping[str, float] = field(default_factory=dict)
    """The rate, from 0 to below 1, at which each input is dropped from a sample during training. If all are drawn, one
    is kept (modality dropout of AV-HuBERT, Shi et al. 2022), except in the share `NOTHING` of the samples. If tasks
    predict all inputs but one, this one can be dropped as well: guidance needs a model that was also trained without
    it."""
    any_number: bool = False
    """Replaces `dropout`: the number of inputs that are dropped from a training sample is uniformly random; one is kept
    as with `dropout`. The model then learns all subsets of the inputs about equally well, as attribution requires,
    which averages over all orders of adding inputs (Shapley 1953; Covert et al. 2023, arXiv:2206.05282)."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """A sample that is longer than the context is bad (`refuse`), or its last inputs are dropped until it fits
    (`drop`)."""

    @property
    def optional(self) -> tuple[str, ...]:
        """The inputs that can be dropped from a sample: those that no task predicts."""
        return tuple(name for name in self.columns if name not in self.targets)

    @property
    def one_stays(self) -> bool:
        """Whether one input is kept if all would be dropped."""
        return len(self.optional) > 1 or not self.targets

    @property
    def dropped(self) -> dict[str, float]:
        """The probability that each input is dropped from a sample that has all of them, without those that are 0."""
        if self.any_number and self.optional:
            share = (len(self.optional) - self.one_stays) / 2 / len(self.optional)
            return dict.fromkeys(self.optional, NOTHING + (1 - NOTHING) * share)
        shares = dropped_shares({name: self.dropout.get(name, 0.0) for name in self.optional}, self.one_stays)
        return {name: share for name, share in shares.items() if share}

    def drop(self, present: Sequence[str], names: Sequence[str], random: np.random.Generator) -> list[str]:
        """Draws which inputs of a sample are dropped; `present` are those that it has. One number is drawn for each
        input in `names`, present or not, so that an optional input does not change the draws of the others."""
        chances = dict(zip(names, random.random(len(names))))
        if self.any_number and present:
            count = (
                len(present) if random.random() < NOTHING else int(random.integers(len(present) + 1 - self.one_stays))
            )
            return sorted(present, key=chances.__getitem__)[:count]
        shares = [self.dropout.get(name, 0.0) for name in present]
        dropped = [name for name, share in zip(present, shares) if chances[name] < share]
        if present and all(shares):
            if random.random() < NOTHING:
                return list(present)
            if len(dropped) == len(present) and self.one_stays:
                del dropped[random.integers(len(dropped))]
        return dropped


SEEDS = 2**63
"""The seed of an item is an integer from 0 to SEEDS - 1."""

Parts = list[tuple[str, Chunk]]
"""One chopped sample: (input, chunk) pairs in the order of their tokens in the set."""


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Chops samples of at most `context` tokens each, and packs them into rows with little padding.

    With `too_long: drop`, items of a sample that is too long are dropped, the last ones first. Items are dropped
    completely, targets never, and at least one item remains; otherwise the sample is bad. `axes` contains the names of
    the position axes of the set; `say` is called with each notice.
    """

    choppers: Mapping[str, Chopper]
    inputs: Inputs
    context: int
    encoder_context: int = 0
    """The maximum number of tokens of a sample that the encoder reads, if there is an encoder."""
    axes: Sequence[str] = ("order",)
    in_time: bool = False
    """Whether the tokens of a sample are sorted by time (in seconds) instead of by input."""
    core: int = 0
    """The number of tokens of each sample that belong to the core (class and register tokens)."""
    say: Callable[[str], None] = print
    dropped: Counter = field(default_factory=Counter)
    """The number of items of each input that were dropped so far because they do not fit into the context."""

    def chop(
        self, item: Mapping[str, Any], key: str, index: SampleIndex, training: bool, only: Collection[str] | None
    ) -> Parts:
        """Chops the decoded inputs `item` of one sample, in the order of the choppers. Inputs that are not in `only`
        are left out, except targets; so are inputs that do not fit into the context. `training` augments, and drops
        inputs at random, seeded by `index`. `key` identifies the sample in messages. Raises ValueError if the sample is
        bad."""
        if not item:
            raise DataError(f"it has none of the inputs ({', '.join(self.choppers)})")
        targets = self.inputs.targets
        present = [name for name in self.choppers if name in item and (only is None or name in {*only, *targets})]
        if not training:
            return self._fitting({name: chopped(name, self.choppers[name], item[name]) for name in present}, key)
        random = np.random.default_rng(tuple(index))
        names = list(self.choppers)
        seeds = dict(zip(names, random.integers(SEEDS, size=len(names)).tolist()))
        dropped = self.inputs.drop([name for name in present if name not in targets], names, random)
        parts = {}
        for name in present:
            if name not in dropped:
                value = self.choppers[name].augment(item[name], random)
                parts[name] = replace(chopped(name, self.choppers[name], value), seed=seeds[name])
        return self._fitting(parts, key)

    def batch(self, samples: Sequence[Parts], rows: str = "packed", **fields: Any) -> Batch:
        """Returns chopped samples as planned sets. `encoded` inputs form the set of the encoder, all others the main
        set. If there are `encoded` inputs, both sets have one sample per row, in the same order.

        `rows`: `packed` (several samples per row) or `one_each` (with the padding on the left, for generation).
        `fields`: further fields of every SetPlan (`labels`, `keys`, `seeds`).
        """
        one_each = range(len(samples)) if rows == "one_each" or self.inputs.encoded else None
        encoder, encoded = None, self.inputs.encoded
        if encoded:
            parts = [[pair for pair in sample if pair[0] in encoded] for sample in samples]
            samples = [[pair for pair in sample if pair[0] not in encoded] for sample in samples]
            encoder = place(parts, self.choppers, self.encoder_context, self.axes, rows=one_each, trim=True,
                            in_time=self.in_time)  # fmt: skip
            encoder = replace(encoder, **fields)
        planned = place(samples, self.choppers, self.context, self.axes, rows=one_each, core=self.core, trim=True,
                        right=rows == "one_each", in_time=self.in_time)  # fmt: skip
        return Batch(main=replace(planned, **fields), encoder=encoder)

    def _fitting(self, parts: dict[str, Chunk], key: str) -> Parts:
        """Returns the parts that fit into the contexts of their sets. Raises DataError if none of them fits, if none of
        the encoder's parts fits, or if `_within` does."""
        encoded = {name: chunk for name, chunk in parts.items() if name in self.inputs.encoded}
        others = {name: chunk for name, chunk in parts.items() if name not in self.inputs.encoded}
        kept = self._within(encoded, 0, self.encoder_context, key, "encoder's ")
        kept |= self._within(others, self.core, self.context, key)
        if encoded and not kept.keys() & encoded.keys():
            longest = max(chunk.count for chunk in encoded.values())
            limit = f"the encoder's context of {self.encoder_context}"
            raise DataError(f"none of its encoder inputs fits: {longest} tokens are more than {limit}")
        read = {name: chunk for name, chunk in parts.items() if name not in self.inputs.targets} or parts
        if parts and not kept.keys() & read.keys():
            longest, limit = max(chunk.count for chunk in read.values()), f"the context of {self.context}"
            predicted = sum(chunk.count for chunk in kept.values())
            limit = f"{limit} minus its {predicted} predicted tokens" if kept else limit
            raise DataError(f"none of its inputs fits: {longest} tokens are more than {limit}")
        return [(name, chunk) for name, chunk in parts.items() if name in kept]

    def _within(self, parts: dict[str, Chunk], core: int, context: int, key: str, owner: str = "") -> dict[str, Chunk]:
        """Returns the parts that fit into a context together; parts that are not targets are dropped, the last ones
        first. Raises DataError if the targets alone are too long, or if parts are dropped while `too_long` is
        `refuse`."""
        kept, dropped = dict(parts), {}
        total = length = core + sum(chunk.count for chunk in parts.values())
        for name in [name for name in reversed(parts) if name not in self.inputs.targets]:
            if total <= context:
                break
            dropped[name] = kept.pop(name).count
            total -= dropped[name]
        limit = f"the {owner}context of {context}"
        if total > context:
            excess = f"its {total} tokens of {' and '.join(kept)} are more than {limit}"
            raise DataError(f"{excess}: enlarge the context, or shorten the samples")
        if dropped and kept and self.inputs.too_long == "refuse":
            names = " and ".join(reversed(dropped))
            raise DataError(f"it has {length} tokens, more than {limit}; data.too_long: drop would drop its {names}")
        for name, count in dropped.items() if kept.keys() - self.inputs.targets else ():
            if not self.dropped[name]:
                notice = f"its {name} ({count} tokens) is dropped (reported once per input)"
                self.say(f"sample {key!r} has {length} tokens, more than {limit}: {notice}")
            self.dropped[name] += 1
        return kept
