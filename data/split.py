"""Splits of a data set. Training and evaluation read a split in batches. A batch depends only on its indices."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from math import ceil
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from ..files.reading import DataError
from ..models.batch import Batch, SampleTargets
from ..tasks.base import Task, with_targets, with_targets_apart
from ..tokenizers.base import Chopper
from .collate import Collator, Inputs, Parts
from .reader import Reader
from .request import Feed, Request
from .sampler import Mixed, SampleIndex, Sampler, Shuffled, SimilarLengths, Weighted
from .samples import Samples
from .skipped import Event, IsBad, IsLeftOut, Lacks, Recorder, Skipped, TooManyBadError, silent


def spread(indices: Sequence[SampleIndex], number: int) -> list[SampleIndex]:
    """Returns `number` of these indices, spread evenly over the sample numbers and sorted by them. If there are at most
    `number` indices, returns all of them, in the given order."""
    if number >= len(indices):
        return list(indices)
    ordered = sorted(indices, key=lambda index: index.number)
    return [ordered[rank * len(ordered) // number] for rank in range(number)]


@dataclass(frozen=True, kw_only=True)
class Split:
    """Base class of all splits. `plan` selects the samples of a step, `batch` reads them. The same indices result in
    the same batch in every process.

    A subclass implements `fingerprint`, `plan`, `all` and `read`; all other methods have a default.
    """

    name: str
    skipped: Skipped
    tasks: Mapping[str, Task] = field(default_factory=dict)
    feed: Feed | None = field(default=None, repr=False, compare=False)
    """What reads the requests of `fetch_all` ahead of time; None: they are read when they are used."""

    unit: ClassVar[str] = "samples"
    """What a batch consists of, for messages: `samples`, or `rows of 256` (tokens)."""
    samples: ClassVar[Samples | None] = None
    """The samples of the split; None for windows of a stream."""
    answerable: ClassVar[bool] = True
    """Whether the split consists of separate samples, for which tasks give answers; false for windows of a stream."""
    choppers: ClassVar[Mapping[str, Chopper]] = {}
    """The choppers of the inputs of the samples. Empty for a stream."""
    sources: ClassVar[Mapping[str, Collection[int]]] = {}
    """For a mixture: the sample numbers of each source, by the name of the source."""
    inputs: ClassVar[Inputs] = Inputs(columns={})
    """The settings of the inputs: which are read, predicted, encoded and dropped. Without columns for a stream."""

    @property
    def fingerprint(self) -> str:
        """A hash of the samples, including labels. A resumed run must have the same hash as before."""
        raise NotImplementedError

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        """Returns the indices of one global training batch (for all processes). They depend only on `seed` and
        `step`."""
        raise NotImplementedError

    def check_training(self) -> None:
        """Raises DataError if the split is too small for training."""

    def all(self) -> list[SampleIndex]:
        """Returns the index of every sample (or window) once, for evaluation."""
        raise NotImplementedError

    def steps_of(self, epochs: float, seed: int) -> int:
        """Returns the number of training steps in which `epochs * len(self)` samples (or windows) are read, rounded up.
        If the steps have different numbers of samples (a token budget), the steps of complete epochs are counted."""
        return max(1, ceil(ceil(epochs * len(self)) / self.rows))

    def by_source(self) -> dict[str, list[SampleIndex]]:
        """Returns the indices of `all`, by the name of the source in a mixture. If the split is not a mixture, all
        indices are under the key ""."""
        if not self.sources:
            return {"": self.all()}
        indices = self.all()
        return {name: [index for index in indices if index.number in numbers] for name, numbers in self.sources.items()}

    def first(self, number: int) -> list[SampleIndex]:
        """Returns the indices of at most `number` samples (or windows), spread evenly over the split."""
        return spread(self.all(), number)

    @property
    def keys(self) -> Sequence[str]:
        """The key of each sample, by number. Empty for a stream."""
        return ()

    def item(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Returns (inputs, labels) of a sample: its decoded items by input, and its labels by column. Both are empty
        for a window of a stream. Raises DataError if the sample is bad."""
        return {}, {}

    @property
    def owners(self) -> int:
        """The number of samples, or of texts of a user, whose losses can be separated."""
        return len(self)

    def owner_of(self, number: int) -> int:
        """Returns the number of the sample, or of the text of a user, to which a sample number of `all` belongs."""
        return number

    def read(
        self, indices: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """Returns these samples as a batch without targets. With `training`, inputs are augmented, and some are dropped
        at random. If `inputs` is not None, only the inputs with these names and the predicted inputs are read."""
        raise NotImplementedError

    def batch(
        self, indices: Sequence[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> Batch:
        """Returns the batch of `read` with the targets of all tasks of the split. The samples that a task excludes from
        its loss are recorded in `skipped`."""
        batch = with_targets(self.read(indices, training=training, inputs=inputs), self.tasks)
        for name, targets in batch.targets.items():
            self.skipped.note(IsLeftOut(name, targets.left_out))
        return batch

    def fetch_all(self, requests: Iterable[Request]) -> Iterator[list[Batch]]:
        """Yields the batches of each request, in order. If the split has a feed, the following requests are read ahead.
        Notes on skipped data are made when the batches are used."""
        if self.feed is None:
            yield from map(self.fetch, requests)
            return
        tickets, remaining = deque(), iter(requests)
        try:
            while True:
                missing = self.feed.ahead(training=False) + 1 - len(tickets)
                tickets.extend(self.feed.submit(self.name, request) for request in islice(remaining, max(missing, 0)))
                if not tickets:
                    return
                batches, events = self.feed.result(tickets.popleft())
                self.skipped.note(*events)
                yield batches
        finally:
            for ticket in tickets:
                self.feed.discard(ticket)

    def read_by(self, feed: Feed | None) -> None:
        """Sets the feed of this split (None: no feed)."""
        object.__setattr__(self, "feed", feed)

    def fetch_noted(self, request: Request) -> tuple[list[Batch], list[Event]]:
        """Returns (the batches of a request, the notes on skipped data that were made meanwhile). For a split that
        `recording` has returned."""
        try:
            return self.fetch(request), self.skipped.taken()
        except TooManyBadError:
            return [], self.skipped.taken()

    def fetch(self, request: Request) -> list[Batch]:
        """Returns the batches of a request."""
        if request.targets is not None:
            return self.predicting(request.targets).fetch(replace(request, targets=None))
        if request.training:
            return [self.batch(request.indices, training=True)]
        if request.tasks is None:
            return [self.read(request.indices, inputs=request.inputs)]
        tasks = {name: self.tasks[name] for name in request.tasks}
        return self.batches(request.indices, tasks, request.inputs, request.apart)

    def recording(self, cache: bool = False) -> Split:
        """Returns a copy of the split that records notes on skipped data (`answered`), and that can be pickled if its
        samples, choppers and tasks can. `cache`: decoded items are cached in memory."""
        return replace(self, skipped=Recorder.of(self.skipped.bad), feed=None)

    def parts(self) -> dict[str, Any]:
        """Returns the parts of the split that user-defined classes may replace, by their names in messages."""
        return {f"tasks.{name}": task for name, task in self.tasks.items()}

    def predicting(self, targets: Collection[str]) -> Split:
        """Returns a copy of the split whose predicted inputs are `targets`. A split reads its predicted inputs in
        addition to any selection of inputs. A corpus is returned unchanged."""
        return self

    def batches(
        self, indices: Sequence[SampleIndex], tasks: Mapping[str, Task], inputs: Collection[str] | None = None,
        apart: bool = False,
    ) -> list[Batch]:  # fmt: skip
        """Returns the batches for an evaluation of these tasks: the batch of `read` with targets. Each task that hides
        parts of the inputs has a separate batch, so these parts remain visible to the other tasks
        (`with_targets_apart`). The samples that a task excludes from its loss are recorded in `skipped`. With `apart`,
        the batches also have the targets of each sample."""
        read, *alone = self.read_apart(indices, inputs) if apart else (self.read(indices, inputs=inputs),)
        batches = with_targets_apart(read, tasks)
        for batch in batches:
            for name, targets in batch.targets.items():
                self.skipped.note(IsLeftOut(name, targets.left_out))
        samples = tuple(targets_alone(batch, tasks) for batch in alone)
        return [replace(batch, apart=samples) for batch in batches]

    def read_apart(self, indices: Sequence[SampleIndex], inputs: Collection[str] | None) -> list[Batch]:
        """Returns the batch of `read`, and a batch for each of its samples alone. Each item is read only once."""
        return [self.read(indices, inputs=inputs), *(self.read([index], inputs=inputs) for index in indices)]

    def keep(self) -> None:
        """Stores, for later runs, results that choppers computed for the items of the split. Called after every
        evaluation. The default does nothing."""

    def __len__(self) -> int:
        """Returns the number of samples (or windows) in one epoch."""
        return len(self.all())

    @cached_property
    def rows(self) -> int:
        """The number of samples (or windows) in the first global training batch. All batches have this number, unless
        the split has a token budget."""
        return len(self.plan(0, 0))


def targets_alone(batch: Batch, tasks: Mapping[str, Task]) -> SampleTargets:
    """Returns the targets of the tasks in a batch of one sample."""
    targets = {name: part.targets[name] for part in with_targets_apart(batch, tasks) for name in part.targets}
    return SampleTargets(number=batch.first.seeds[0][-1], targets=targets, units=batch.units)


class ChoppedSample(NamedTuple):
    """One chopped sample of a batch."""

    sample_index: SampleIndex
    parts: Parts
    labels: Mapping[str, Any]
    """The labels, by column."""
    units: Counter[str]
    """By input, the size of the item if the input has a vocabulary: for texts the number of UTF-8 bytes. Empty in
    training."""
    absent: tuple[str, ...]
    """The inputs that the sample lacks; empty in training."""


@dataclass(frozen=True, kw_only=True)
class SampleSplit(Split):
    """A split that consists of samples. A sample is *bad* if it cannot be read or chopped, has none of the inputs, has
    a label that a task does not accept, or does not fit into the context. Training replaces a bad sample by the next
    good sample; an evaluation skips it. Bad samples are counted and reported. Raises DataError if there are no
    samples."""

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
    def keys(self) -> Sequence[str]:
        return self.samples.keys

    @property
    def choppers(self) -> Mapping[str, Chopper]:
        """The chopper of each input."""
        return self.collator.choppers

    @property
    def inputs(self) -> Inputs:
        """The settings of the inputs: which are read, predicted, encoded and dropped."""
        return self.collator.inputs

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the samples: their keys, in order, and their content."""
        return self.samples.fingerprint(self.inputs.labels)

    @property
    def sources(self) -> Mapping[str, Collection[int]]:
        return {source.name: self.samples.range_of(source.name) for source in self.samples.mixture}

    def __len__(self) -> int:
        return len(self.samples)

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return self.sampler.plan(seed, step)

    def all(self) -> list[SampleIndex]:
        """Returns the index of every sample once. With an encoder, where each row has one sample, the indices are
        sorted by length; otherwise by number."""
        numbers = np.lexsort(self.reader.lengths.T).tolist() if self.inputs.encoded else range(len(self.samples))
        return [SampleIndex(0, 0, number) for number in numbers]

    def steps_of(self, epochs: float, seed: int) -> int:
        return self.sampler.steps_of(epochs, seed) or super().steps_of(epochs, seed)

    def keep(self) -> None:
        for chopper in self.choppers.values():
            chopper.keep()

    def recording(self, cache: bool = False) -> SampleSplit:
        recorder = Recorder.of(self.skipped.bad)
        reader = self.reader.with_bad(recorder.bad, cache)
        collator = replace(self.collator, note=recorder.note)
        sampler = Shuffled(len(self.samples), 1)  # requests name their samples
        return replace(self, skipped=recorder, reader=reader, collator=collator, sampler=sampler, feed=None)

    def parts(self) -> dict[str, Any]:
        choppers = {f"inputs.{name}": chopper for name, chopper in self.choppers.items()}
        return {"data.dataset": self.samples} | choppers | super().parts()

    def only(self, number: int) -> SampleSplit:
        """Returns a split with only this sample, for an evaluation. The sample keeps its number, by which tasks choose
        the parts that they hide."""
        skipped = Skipped.of(self.name, self.samples.keys, say=silent)
        reader, collator = (
            self.reader.with_bad(skipped.bad, False),
            replace(self.collator, note=skipped.note),
        )
        return OneSample(
            name=self.name, skipped=skipped, tasks=self.tasks, reader=reader, collator=collator, sampler=self.sampler,
            number=number,
        )  # fmt: skip

    def predicting(self, targets: Collection[str]) -> SampleSplit:
        inputs = replace(self.inputs, targets=targets)
        return replace(self, collator=replace(self.collator, inputs=inputs))

    def item(self, number: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Returns (decoded inputs by input name, labels by column) of a sample. Raises DataError or OSError if the
        sample is bad."""
        return self.reader.item(number)

    def read(
        self, indices: Iterable[SampleIndex], *, training: bool = False, inputs: Collection[str] | None = None,
        rows: str = "packed", replaced: Mapping[str, Any] | None = None,
    ) -> Batch:  # fmt: skip
        """See `Split.read`. `rows`: `packed` (several samples per row) or `one_each` (one sample per row, with the
        padding on the left, for generation). `replaced`: by input, an item that replaces the item of every sample, such
        as an empty text if the text is to be generated; None removes the input; a function is called with the number of
        the sample and returns the item. Raises DataError if more samples are bad than allowed."""
        samples = [sample for index in indices if (sample := self._sample(index, training, inputs, replaced))]
        return self._batch(samples, rows)

    def read_apart(self, indices: Iterable[SampleIndex], inputs: Collection[str] | None) -> list[Batch]:
        samples = [sample for index in indices if (sample := self._sample(index, False, inputs, None))]
        return [self._batch(each, "packed") for each in (samples, *([sample] for sample in samples))]

    def _batch(self, samples: Sequence[ChoppedSample], rows: str) -> Batch:
        """Returns chopped samples as a batch; for `rows` see `read`."""
        labels = {name: [sample.labels[name] for sample in samples] for name in self.inputs.labels}
        keys = tuple(self.samples.keys[sample.sample_index.number] for sample in samples)
        seeds = tuple(tuple(sample.sample_index) for sample in samples)
        batch = self.collator.batch([sample.parts for sample in samples], rows, labels=labels, keys=keys, seeds=seeds)
        units: Counter[str] = Counter()
        for sample in samples:
            units.update(sample.units)  # an addition would drop texts of no bytes
        return replace(batch, units=dict(units))

    def chop(self, index: SampleIndex, training: bool = False, inputs=None, replaced=None) -> ChoppedSample:
        """Returns a chopped sample. Each item is decoded only once. For the parameters see `read`. Raises ValueError or
        OSError if the sample is bad."""
        items, labels = self.reader.item(index.number, training)
        new = {name: item(index.number) if callable(item) else item for name, item in (replaced or {}).items()}
        read = {name: value for name, value in {**items, **new}.items() if value is not None}
        parts = self.collator.chop(read, self.samples.keys[index.number], index, training, inputs)
        units = Counter() if training or not self._countable else self._units(items, parts)
        absent = () if training else self._absent(items, parts, excluded=inputs is not None or bool(replaced))
        return ChoppedSample(index, parts, labels, units, absent)

    def _absent(self, items: Mapping[str, Any], parts: Parts, excluded: bool) -> tuple[str, ...]:
        """Returns the inputs that a sample lacks: those without an item, with an item of missing values only, or whose
        item does not fit into the context. `excluded`: whether other items are left out on purpose."""
        chunks = dict(parts)
        return tuple(
            name for name in self.choppers if name not in items or (name not in chunks and not excluded)
            or (name in chunks and is_missing(chunks[name].values))
        )  # fmt: skip

    @cached_property
    def _countable(self) -> dict[str, Any]:
        """The vocabularies of the inputs that have one."""
        return {name: v for name, chopper in self.choppers.items() if (v := chopper.vocabulary) is not None}

    def _units(self, items: Mapping[str, Any], parts: Parts) -> Counter[str]:
        """Returns the size of each item of `parts` with a vocabulary: for texts the number of UTF-8 bytes."""
        vocabularies = self._countable
        return Counter({n: vocabularies[n].units(items[n]) for n, _ in parts if n in items and n in vocabularies})

    def _sample(self, index: SampleIndex, training: bool, inputs, replaced) -> ChoppedSample | None:
        """Returns a chopped sample. If the sample is bad, returns the next good sample in training, and None in an
        evaluation. Raises DataError if more samples are bad than allowed, or if all are bad."""
        first = None
        for _ in range(len(self.samples)):
            try:
                sample = self.chop(index, training, inputs, replaced)
                if sample.absent:
                    self.skipped.note(Lacks(index.number, sample.absent))
                return sample
            except (ValueError, OSError, RuntimeError) as error:  # a user-defined tokenizer may raise any of these
                first = first or error
                self.skipped.note(IsBad(index.number, str(error), training))
            if not training:
                return None
            index = index._replace(number=(index.number + 1) % len(self.samples))
        raise DataError(f"{self.name}: all samples are bad; the first: {first}")


def is_missing(values: Any) -> bool:
    """Returns whether all values of an item are NaN, as those of a sensor that has failed."""
    return (
        isinstance(values, Tensor) and values.is_floating_point() and bool(len(values)) and bool(values.isnan().all())
    )


@dataclass(frozen=True, kw_only=True)
class OneSample(SampleSplit):
    """One sample of a split."""

    number: int
    """The number of the sample in the split."""

    def all(self) -> list[SampleIndex]:
        return [SampleIndex(0, 0, self.number)]

    def by_source(self) -> dict[str, list[SampleIndex]]:
        return {"": self.all()}

    def __len__(self) -> int:
        return 1


def sampler_of(samples: Samples, reader: Reader, rows: int, budget: int | None) -> Sampler:
    """Returns the sampler of training batches: `Weighted` if the samples have weights, `Mixed` for a mixture,
    `SimilarLengths` with a token `budget`, otherwise `Shuffled`. `rows` is the number of samples per batch without a
    budget. Raises DataError if there is a budget for a mixture or for samples with weights."""
    if samples.weights is not None:
        if budget:
            raise DataError("samples with weights need samples_per_step instead of tokens_per_step")
        return Weighted(samples.weights, rows)
    if not samples.mixture:
        return SimilarLengths(lambda: reader.lengths, budget) if budget else Shuffled(len(samples), rows)
    return sampler_of_mixture(samples, reader, rows, budget)


def sampler_of_mixture(samples: Samples, reader: Reader, rows: int, budget: int | None) -> Sampler:
    """Returns the sampler of a mixture. Raises DataError for a token budget."""
    if budget:
        raise DataError("a mixture needs samples_per_step instead of tokens_per_step")
    ranges = [samples.range_of(source.name) for source in samples.mixture]
    shares = [source.share for source in samples.mixture]
    weights = [source.samples.weights for source in samples.mixture]
    if samples.by_tokens:
        lengths = [reader.mean_length(*source) for source in zip(ranges, weights)]
        shares = [share / max(length, 1.0) for share, length in zip(shares, lengths)]
    return Mixed([len(numbers) for numbers in ranges], shares, rows, weights)


def sample_split(
    samples: Samples, name: str, collator: Collator, skipped: Skipped | None = None, *,
    tasks: Mapping[str, Any] | None = None, rows: int | None = None, budget: int | None = None,
) -> SampleSplit:  # fmt: skip
    """Returns samples as a split. A global training batch has `rows` samples (None: one). With a `budget`, it has
    samples of similar length, with at most `budget` slots in each set, including padding (`SimilarLengths`). `skipped`
    receives notes on bad samples (None: no sample may be bad, and notes are printed)."""
    checks: dict[str, list[Callable[[Any], None]]] = {}
    for task in (tasks or {}).values():
        for column, check in task.needs.columns.items():
            checks.setdefault(column, []).append(check)
    skipped = skipped or Skipped.of(name, samples.keys, bad_share=0.0)
    collator = replace(collator, note=skipped.note)
    reader = Reader(samples, collator.choppers, collator.inputs, skipped.bad, checks)
    sampler = sampler_of(samples, reader, rows or 1, budget)
    return SampleSplit(name=name, skipped=skipped, reader=reader, collator=collator, sampler=sampler, tasks=tasks or {})
