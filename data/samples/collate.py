"""Collation, from decoded items to sets of tokens: inputs are withheld at random, items chopped, dropped where the
context lacks room, and packed into rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ...models.batch import Batch
from ...tokenizers.base import Chopper, Chunk
from ...tokenizers.chopping.contract import chopped
from ...tokenizers.chopping.packing import place
from ...tokenizers.files.reading import DataError
from ..sampler import Place
from .inputs import Inputs

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
        self, item: Mapping[str, Any], key: str, each: Place, training: bool, only: Collection[str] | None
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
        withheld = self.inputs.withhold([name for name in present if name not in targets], every, random)
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
