"""What training and evaluation read: a split of a data set in batches, each a pure function of its places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..files.reading import DataError
from ..models.batch import Batch
from ..tasks.base import Task, with_targets, with_targets_apart
from ..tokenizers.base import Chopper
from .collate import Collator, Inputs, Parts
from .reader import Reader, Skipped
from .sampler import Mixed, SampleIndex, Sampler, Shuffled, SimilarLengths, Weighted
from .samples import Samples


def spread(places: Sequence[SampleIndex], number: int) -> list[SampleIndex]:
    """At most `number` of these places, spread evenly over their numbers; all of them, in their order, where there are
    no more."""
    if number >= len(places):
        return list(places)
    every = sorted(places, key=lambda place: place.number)
    return [every[index * len(every) // number] for index in range(number)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Base of all splits: `plan` says which samples a step reads, `batch` reads them. A batch is the same for any
    process that asks for it.

    A subclass gives four: `fingerprint`, `plan`, `all` and `read`; everything else follows.
    """

    name: str
    skipped: Skipped
    tasks: Mapping[str, Task] = field(default_factory=dict)

    unit: ClassVar[str] = "samples"
    """What a batch counts, in words for messages: `samples`, or `rows of 256` (tokens)."""
    samples: ClassVar[Samples | None] = None
    """The samples that it reads; None: windows of a stream."""
    sources: ClassVar[Mapping[str, Collection[int]]] = {}
    """Of a mixture: the numbers of the samples of each data set in it, by its name."""
    inputs: ClassVar[Inputs] = Inputs(columns={})
    """Which inputs are read of each sample, predicted, encoded and withheld; empty for a stream."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content, labels too: a resumed run must find the data that it was trained on."""
        raise NotImplementedError

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        """The places of one global training batch: the same for any number of processes, whatever was read before."""
        raise NotImplementedError

    def all(self) -> list[SampleIndex]:
        """The places of every sample (or window) once: what an evaluation reads."""
        raise NotImplementedError

    def by_source(self) -> dict[str, list[SampleIndex]]:
        """The places of `all` by the data set of a mixture that they are in; all under "" where it is none."""
        if not self.sources:
            return {"": self.all()}
        every = self.all()
        return {name: [place for place in every if place.number in own] for name, own in self.sources.items()}

    def first(self, number: int) -> list[SampleIndex]:
        """The places of at most `number` samples (or windows), spread evenly over the split."""
        return spread(self.all(), number)

    def read(
        self, places: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """The samples at these places as a batch without targets. `training` augments and withholds inputs at random;
        `inputs`, where given, are the only ones that are read, beside those that a task predicts."""
        raise NotImplementedError

    def batch(
        self, places: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """What `read` gives, with every task's targets: what a model reads and its losses are computed on. Notes in
        `skipped` the samples that a task leaves out."""
        batch = with_targets(self.read(places, training=training, inputs=inputs), self.tasks)
        for name, targets in batch.targets.items():
            self.skipped.left_out.note(name, targets.left_out)
        return batch

    def batches(
        self, places: Sequence[SampleIndex], tasks: Mapping[str, Task], inputs: Collection[str] | None = None
    ) -> list[Batch]:
        """The batches that an evaluation of these tasks reads. They hold what `read` gives, with targets. Tasks that
        hide parts of the inputs get batches of their own, so that no task sees what another one hides
        (`with_targets_apart`). Counts in `skipped` the samples that a task leaves out."""
        found = with_targets_apart(self.read(places, inputs=inputs), tasks)
        for batch in found:
            for name, targets in batch.targets.items():
                self.skipped.left_out.note(name, targets.left_out)
        return found

    def keep(self) -> None:
        """Keep what was computed of its items for later runs; called after every evaluation."""

    def __len__(self) -> int:
        """How many samples one epoch has."""
        return len(self.all())

    @cached_property
    def rows(self) -> int:
        """How many samples (or windows) the first global training batch has; later ones too, where all are alike."""
        return len(self.plan(0, 0))


class ChoppedSample(NamedTuple):
    """One sample of a batch."""

    place: SampleIndex
    parts: Parts
    labels: Mapping[str, Any]
    """By column."""
    units: Counter[str]
    """The sizes of its items that are ids, by input: of texts their UTF-8 bytes. Empty while training."""


@dataclass(frozen=True, kw_only=True)
class SampleSplit(Split):
    """Samples, read in batches. A sample that cannot be read, has none of the inputs, or does not fit the context, is
    *bad*: the next good one takes its place while training, an evaluation leaves it out; it is counted and named.
    Raises DataError where there are no samples."""

    reader: Reader
    collator: Collator
    sampler: Sampler

    def __post_init__(self):
        if not len(self.samples):
            raise DataError(f"{self.name} holds no samples")

    @property
    def samples(self) -> Samples:
        """The raw samples of the data set."""
        return self.reader.samples

    @property
    def choppers(self) -> Mapping[str, Chopper]:
        """The chopper of each input."""
        return self.collator.choppers

    @property
    def inputs(self) -> Inputs:
        """Which inputs are read, predicted, encoded and withheld."""
        return self.collator.inputs

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the samples: of their keys, in order, and their contents."""
        return self.samples.fingerprint(self.inputs.labels)

    @property
    def sources(self) -> Mapping[str, Collection[int]]:
        return {source.name: self.samples.range_of(source.name) for source in self.samples.mixture}

    def __len__(self) -> int:
        return len(self.samples)

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return self.sampler.plan(seed, step)

    def all(self) -> list[SampleIndex]:
        """The places of every sample once; where rows hold one sample each, from the shortest to the longest."""
        numbers = np.lexsort(self.reader.lengths.T).tolist() if self.inputs.encoded else range(len(self.samples))
        return [SampleIndex(0, 0, number) for number in numbers]

    def keep(self) -> None:
        for chopper in self.choppers.values():
            chopper.keep()

    def item(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The decoded inputs of a sample by input name, and its labels by column. Raises DataError when it is bad."""
        return self.reader.item(number)

    def read(
        self, places: Iterable[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None,
        rows: str = "packed", replaced: Mapping[str, Any] | None = None,
    ) -> Batch:  # fmt: skip
        """As `Split.read`. `rows`: `packed`, several samples a row, or `one_each`, with the padding in front (for
        generation). `replaced`: by input, an item that every sample gets in place of its own, such as an empty text
        where one is to be generated, a function from a sample's number to it, or None: it is left out. Raises DataError
        where too many samples are bad."""
        read = [sample for each in places if (sample := self._sample(each, training, inputs, replaced))]
        labels = {name: [sample.labels[name] for sample in read] for name in self.inputs.labels}
        keys = tuple(self.samples.keys[sample.place.number] for sample in read)
        seeds = tuple(tuple(sample.place) for sample in read)
        batch = self.collator.batch([sample.parts for sample in read], rows, labels=labels, keys=keys, seeds=seeds)
        units: Counter[str] = Counter()
        for sample in read:
            units.update(sample.units)  # an addition would drop texts of no bytes
        return replace(batch, units=dict(units))

    def chop(self, place: SampleIndex, training: bool = False, inputs=None, replaced=None) -> ChoppedSample:
        """A sample, whose items are decoded once for all that is read of them; parameters as of `read`. Raises
        ValueError for a bad one."""
        items, labels = self.reader.item(place.number, training)
        new = {name: item(place.number) if callable(item) else item for name, item in (replaced or {}).items()}
        read = {name: value for name, value in {**items, **new}.items() if value is not None}
        parts = self.collator.chop(read, self.samples.keys[place.number], place, training, inputs)
        units = Counter() if training else self._units({name: items[name] for name, _ in parts if name in items})
        return ChoppedSample(place, parts, labels, units)

    def _units(self, items: Mapping[str, Any]) -> Counter[str]:
        known = {name: self.choppers[name].vocabulary for name in items}
        return Counter({name: known[name].units(item) for name, item in items.items() if known[name] is not None})

    def _sample(self, each: SampleIndex, training: bool, inputs, replaced) -> ChoppedSample | None:
        """A sample. For a bad one: the next good sample while training, else None. Raises DataError if too many, or
        all, are bad."""
        for _ in range(len(self.samples)):
            try:
                return self.chop(each, training, inputs, replaced)
            except (ValueError, OSError, RuntimeError) as error:  # a tokenizer of the user's own may raise any of these
                self.skipped.bad.note(each.number, error, training)
            if not training:
                return None
            each = each._replace(number=(each.number + 1) % len(self.samples))
        raise DataError(f"{self.name}: not one sample can be read; the first: {self.skipped.bad[0]}")


def sampler_of(samples: Samples, reader: Reader, rows: int, budget: int | None) -> Sampler:
    """How training batches are drawn: of a mixture by the shares of its sources, under a budget of tokens samples of
    similar lengths, else so many `rows`. Raises DataError for a mixture under a budget."""
    if samples.weights is not None:
        if budget:
            raise DataError("samples that are drawn by weight are trained on by samples_per_step, not tokens_per_step")
        return Weighted(samples.weights, rows)
    if not samples.mixture:
        return SimilarLengths(lambda: reader.lengths, budget) if budget else Shuffled(len(samples), rows)
    if budget:
        raise DataError("a mixture is trained on by samples_per_step, not by tokens_per_step")
    ranges = [samples.range_of(source.name) for source in samples.mixture]
    shares = [source.share for source in samples.mixture]
    weights = [source.samples.weights for source in samples.mixture]
    if samples.by_tokens:
        lengths = [reader.mean_length(*each) for each in zip(ranges, weights)]
        shares = [share / max(length, 1.0) for share, length in zip(shares, lengths)]
    return Mixed([len(each) for each in ranges], shares, rows, weights)


def sample_split(
    samples: Samples, name: str, collator: Collator, *, tasks: Mapping[str, Any] | None = None,
    rows: int | None = None, budget: int | None = None, bad_share: float = 0.0, say: Callable[[str], None] = print,
) -> SampleSplit:  # fmt: skip
    """Samples as a split. A global training batch has `rows` samples, whatever their lengths, or, with a `budget`,
    samples of similar length: at most so many slots in its fuller set, padding included (`SimilarLengths`).
    `bad_share` is the share of samples that may be bad, `say` is called with notices."""
    checks: dict[str, list[Callable[[Any], None]]] = {}
    for task in (tasks or {}).values():
        for column, check in task.needs.columns.items():
            checks.setdefault(column, []).append(check)
    skipped = Skipped.of(name, samples.keys, bad_share, say)
    collator = replace(collator, say=lambda text: say(f"{name}: {text}"), dropped=skipped.dropped)
    reader = Reader(samples, collator.choppers, collator.inputs, skipped.bad, checks)
    sampler = sampler_of(samples, reader, rows or 1, budget)
    return SampleSplit(name=name, skipped=skipped, reader=reader, collator=collator, sampler=sampler, tasks=tasks or {})
