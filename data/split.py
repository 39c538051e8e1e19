"""What training and evaluation read: a split of a data set in batches, each a pure function of its places."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from ..models.batch import Batch
from ..tasks.base import Task
from ..tasks.targets import with_targets, with_targets_apart
from .sampler import Place
from .samples.dataset import Samples
from .samples.inputs import Inputs
from .unread import Unread


def spread(places: Sequence[Place], number: int) -> list[Place]:
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
    unread: Unread
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

    def plan(self, seed: int, step: int) -> list[Place]:
        """The places of one global training batch: the same for any number of processes, whatever was read before."""
        raise NotImplementedError

    def all(self) -> list[Place]:
        """The places of every sample (or window) once: what an evaluation reads."""
        raise NotImplementedError

    def by_source(self) -> dict[str, list[Place]]:
        """The places of `all` by the data set of a mixture that they are in; all under "" where it is none."""
        if not self.sources:
            return {"": self.all()}
        every = self.all()
        return {name: [place for place in every if place.number in own] for name, own in self.sources.items()}

    def first(self, number: int) -> list[Place]:
        """The places of at most `number` samples (or windows), spread evenly over the split."""
        return spread(self.all(), number)

    def read(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """The samples at these places as a batch without targets. `training` augments and withholds inputs at random;
        `inputs`, where given, are the only ones that are read, beside those that a task predicts."""
        raise NotImplementedError

    def batch(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """What `read` gives, with every task's targets: what a model reads and its losses are computed on. Notes in
        `unread` the samples that a task leaves out."""
        batch = with_targets(self.read(places, training=training, inputs=inputs), self.tasks)
        for name, targets in batch.targets.items():
            self.unread.left_out.note(name, targets.left_out)
        return batch

    def batches(
        self, places: Sequence[Place], tasks: Mapping[str, Task], inputs: Collection[str] | None = None
    ) -> list[Batch]:
        """The batches that an evaluation of these tasks reads. They hold what `read` gives, with targets. Tasks that
        hide parts of the inputs get batches of their own, so that no task sees what another one hides
        (`with_targets_apart`). Counts in `unread` the samples that a task leaves out."""
        found = with_targets_apart(self.read(places, inputs=inputs), tasks)
        for batch in found:
            for name, targets in batch.targets.items():
                self.unread.left_out.note(name, targets.left_out)
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
