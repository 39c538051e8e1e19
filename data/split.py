"""What training and evaluation read: a split of a data set in batches, each a pure function of its places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..models.batch import Batch
from ..tasks.base import Task
from ..tasks.targets import with_targets
from .bad_samples import BadSamples, LeftOut
from .sampler import Place
from .samples.dataset import Samples


@dataclass(frozen=True, kw_only=True)
class Split:
    """Base of all splits. A batch is the same whoever asks for it: `plan` says which samples a step reads,
    `batch` reads them."""

    name: str
    tasks: Mapping[str, Task] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut, repr=False)
    """The samples that tasks could not judge."""
    samples: ClassVar[Samples | None] = None
    """The samples that it reads; None: windows of one text."""
    unit: ClassVar[str] = "samples"
    """What is counted: samples, or rows of so many tokens."""
    rows: ClassVar[int]
    """How many samples (or windows) the first global training batch has; later ones too, where all are alike."""
    bad: ClassVar[BadSamples]
    dropped: ClassVar[Counter]
    """How many items of each input were left out for want of room."""

    optional_inputs: ClassVar[tuple[str, ...]] = ()
    """The inputs that can be withheld from a sample: those that no task predicts."""
    withheld: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """How often each input is withheld while training, and the chance that it was given (see `Inputs`)."""

    @property
    def fingerprint(self) -> str:
        """What identifies the content, labels too: a resumed run must find the data that it was trained on."""
        raise NotImplementedError

    def __len__(self) -> int:
        """How many samples there are."""
        raise NotImplementedError

    def unread(self) -> dict[str, int]:
        """How much of it was not read so far, by why: `bad` samples, items `without_room`."""
        return {}

    def told(self) -> list[str]:
        """The same, in a sentence each."""
        return []

    def bytes_of(self, batch: Batch, target: str) -> float:
        """The UTF-8 bytes of the texts that the targets of a batch stand for, where `target` is an input of text; of a
        whole evaluation, all that the split has."""
        raise NotImplementedError

    def plan(self, seed: int, step: int) -> list[Place]:
        """The places of one global training batch: the same for any number of processes, whatever was read before."""
        raise NotImplementedError

    def all(self) -> list[Place]:
        """Every sample once: what an evaluation reads."""
        raise NotImplementedError

    def read(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """What stands at these places, without targets; of the inputs only those named (and what is predicted)."""
        raise NotImplementedError

    def batch(self, places: Sequence[Place], *, training: bool = False, inputs: Collection[str] | None = None) -> Batch:
        """What a model reads and an objective judges: the same with every task's targets."""
        batch = with_targets(self.read(places, training=training, inputs=inputs), self.tasks)
        for name, targets in batch.targets.items():
            self.left_out.note(name, targets.left_out)
        return batch
