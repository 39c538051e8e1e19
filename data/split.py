"""What training and evaluation read: a split of a data set in batches, each a pure function of its places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from ..models.batch import Batch, SetPlan
from ..tasks.base import Task
from .bad_samples import BadSamples
from .sampler import Place


class Split:
    """Base of all splits. A batch is the same whoever asks for it: `plan` says which samples a step reads,
    `batch` reads them."""

    name: str
    tasks: Mapping[str, Task]
    rows: int
    """How many samples (or windows) the first global training batch has; later ones too, where all are alike."""
    unit: str = "samples"
    """What is counted: samples, or rows of so many tokens."""
    bad: BadSamples
    dropped: Counter
    """How many items of each input were left out for want of room."""

    optional_inputs: tuple[str, ...] = ()
    """The inputs that can be withheld from a sample: those that no task predicts."""
    withheld: Mapping[str, tuple[float, float]] = {}
    """How often each input is withheld while training, and the chance that it was given (see `Inputs`)."""

    @property
    def fingerprint(self) -> str:
        """What identifies the content, labels too: a resumed run must find the data that it was trained on."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many samples there are."""
        raise NotImplementedError

    def plan(self, seed: int, step: int) -> list[Place]:
        """The places of one global training batch: the same for any number of processes, whatever was read before."""
        raise NotImplementedError

    def all(self) -> list[Place]:
        """Every sample once: what an evaluation reads."""
        raise NotImplementedError

    def sets(
        self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None
    ) -> dict[str, SetPlan]:
        """What stands at these places as planned sets, by the name of the core that reads each; of the inputs
        only those named (and what is predicted)."""
        raise NotImplementedError

    def batch(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """The same with every task's targets: what a model reads and an objective judges."""
        sets = self.sets(places, training=training, inputs=inputs)
        for task in self.tasks.values():
            sets = task.alter(sets)
        targets = {}
        for name, task in self.tasks.items():
            own = task.set_of(sets)
            targets[name] = replace(task.targets(sets[own]), set=own)
        return Batch(sets=sets, targets=targets)
