"""A split of samples: a sampler that plans, a reader that decodes, a collator that chops and packs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...models.batch import Batch
from ...tokenizers.base import Chopper
from ...tokenizers.files.reading import DataError
from ..bad_samples import BadSamples, LeftOut
from ..sampler import Place, Sampler, Shuffled, SimilarLengths
from ..split import Split
from .collate import Collator, Parts
from .dataset import Samples
from .inputs import Inputs
from .reader import Reader


@dataclass(frozen=True, kw_only=True)
class SampleSplit(Split):
    """Samples, read in batches. A sample that cannot be read, that has none of the inputs, or that does not fit
    the context, is *bad*: the next good one takes its place while training, an evaluation leaves it out; it is
    counted and named."""

    reader: Reader
    collator: Collator
    sampler: Sampler

    def __post_init__(self):
        if not len(self.samples):
            raise DataError(f"{self.name} holds no samples")

    @property
    def samples(self) -> Samples:
        """The samples, as they lie in the data set."""
        return self.reader.samples

    @property
    def choppers(self) -> Mapping[str, Chopper]:
        """What chops each input."""
        return self.collator.choppers

    @property
    def inputs(self) -> Inputs:
        """Which inputs are read, predicted, encoded and withheld."""
        return self.collator.inputs

    @property
    def bad(self) -> BadSamples:
        """The bad samples that were met."""
        return self.reader.bad

    @property
    def dropped(self) -> Counter:
        return self.collator.dropped

    @property
    def optional_inputs(self) -> tuple[str, ...]:
        return tuple(name for name in self.choppers if name not in self.inputs.targets)

    @property
    def withheld(self) -> dict[str, tuple[float, float]]:
        return {name: (share, self.inputs.dropout[name]) for name, share in self.inputs.withheld.items()}

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the samples: their keys, in order, and what they hold."""
        return self.samples.fingerprint(self.inputs.labels)

    @cached_property
    def rows(self) -> int:
        return len(self.plan(0, 0))

    def __len__(self) -> int:
        return len(self.samples)

    def unread(self) -> dict[str, int]:
        return {"bad": len(self.bad), "without_room": self.dropped.total()}

    def told(self) -> list[str]:
        found = [f"{self.name}: {len(self.bad):,} of {len(self.samples):,} samples are bad"] if self.bad else []
        dropped = [f"{name} of {count:,}" for name, count in self.dropped.items()]
        return found + ([f"{self.name}: left out for want of room: {', '.join(dropped)} samples"] if dropped else [])

    def bytes_of(self, batch: Batch, target: str) -> float:
        texts = (self.item(self.reader.number(key))[0].get(target) for key in batch.first.keys)
        return float(sum(len(text.encode()) for text in texts if isinstance(text, str)))

    def plan(self, seed: int, step: int) -> list[Place]:
        return self.sampler.plan(seed, step)

    def all(self) -> list[Place]:
        """Every sample once. Where rows hold one sample each, from the shortest to the longest."""
        numbers = np.lexsort(self.reader.lengths.T).tolist() if self.inputs.encoded else range(len(self.samples))
        return [Place(0, 0, number) for number in numbers]

    def first(self, number: int) -> list[Place]:
        """Some samples, spread evenly over the split: for a glance at all of it."""
        count = len(self.samples)
        return [Place(0, 0, index * count // number) for index in range(number)] if number < count else self.all()

    def item(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The decoded inputs of a sample by input name, and its labels by column. Raises DataError when it is bad."""
        return self.reader.item(number)

    def read(
        self, places: Iterable[Place], *, training: bool = False, inputs: Collection[str] | None = None,
        rows: str = "packed", replaced: Mapping[str, Any] | None = None,
    ) -> Batch:  # fmt: skip
        """`rows`: `packed`, or `one_each` with the padding in front (for generation); `replaced` are items
        that stand in for the samples' own, such as an empty text where one is to be written."""
        read = [sample for each in places if (sample := self._sample(each, training, inputs, replaced or {}))]
        numbers = [each.number for _, each in read]
        labels = {name: [self.item(number)[1][name] for number in numbers] for name in self.inputs.labels}
        keys, seeds = tuple(self.samples.keys[number] for number in numbers), tuple(tuple(each) for _, each in read)
        return self.collator.batch([parts for parts, _ in read], rows, labels=labels, keys=keys, seeds=seeds)

    def chop(self, each: Place, training: bool = False, inputs=None, replaced=None) -> Parts:
        """(input, chunk) pairs of a sample. Raises ValueError for a bad one."""
        item = {**self.item(each.number)[0], **(replaced or {})}
        return self.collator.chop(item, self.samples.keys[each.number], each, training, inputs)

    def _sample(self, each: Place, training: bool, inputs, replaced) -> tuple[Parts, Place] | None:
        """The chopped parts of a sample, and where it was found: while training the next good one; None for a
        bad one else."""
        for _ in range(len(self.samples)):
            try:
                return self.chop(each, training, inputs, replaced), each
            except (ValueError, OSError, RuntimeError) as error:  # a tokenizer of the user's own may raise any of these
                self.bad.note(each.number, error, training)
            if not training:
                return None
            each = each._replace(number=(each.number + 1) % len(self.samples))
        raise DataError(f"{self.name}: not one sample can be read; the first: {self.bad[0]}")


def sample_split(
    samples: Samples, name: str, collator: Collator, *, tasks: Mapping[str, Any] | None = None,
    rows: int | None = None, budget: int | None = None, bad_share: float = 0.0, say: Callable[[str], None] = print,
) -> SampleSplit:  # fmt: skip
    """Samples as a split whose global training batch has `rows` samples, whatever their lengths, or, under a
    `budget` of tokens (padding included, on its fuller side), samples of similar length."""
    checks: dict[str, list[Callable[[Any], None]]] = {}
    for task in (tasks or {}).values():
        for column, check in task.needs.columns.items():
            checks.setdefault(column, []).append(check)
    bad = BadSamples(name, samples.keys, bad_share, say)
    collator = replace(collator, say=lambda text: say(f"{name}: {text}"), dropped=Counter())
    reader = Reader(samples, collator.choppers, collator.inputs, bad, checks)
    sampler = SimilarLengths(lambda: reader.lengths, budget) if budget else Shuffled(len(samples), rows or 1)
    left_out = LeftOut(say)
    return SampleSplit(
        name=name, reader=reader, collator=collator, sampler=sampler, tasks=tasks or {}, left_out=left_out
    )
