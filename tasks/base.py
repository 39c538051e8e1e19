"""What every task is made of: supervised slots and targets in, named loss terms and metrics out. No parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from ..models.batch import SetPlan, Targets
from ..tokenizers.base import Chopper


class Term(NamedTuple):
    """One loss term of one micro-batch. The objective is the sum over terms of weight * total sum / total count.

    Sums and counts, never means: so that accumulation, ranks and ragged targets agree by construction.
    """

    sum: Tensor
    count: int
    weight: float = 1.0


class Metric(NamedTuple):
    """What a figure means: its unit, and whether a larger one is better."""

    unit: str
    larger_is_better: bool = False


LOSS = Metric("nats per target")


@runtime_checkable
class TrainingColumns(Protocol):
    """What a task may see of the training data before it is trained: one column at a time."""

    def __len__(self) -> int:
        """How many samples there are."""

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, of all samples that have one, in order."""


class Task:
    """Base of all tasks. `target` names the input (or data column) that the task is about."""

    target: str
    target_is_column: ClassVar[bool] = False
    """Whether its target is a column of the data (a label, a number, a text beside a sound), and no input."""
    weight: float = 1.0
    """What its loss counts beside those of other tasks."""
    in_nats: ClassVar[bool] = True
    """Whether the loss is a likelihood, so that differences of it are bits."""
    whole_batches: bool = False
    """Whether its loss judges the samples of a batch together, so that a batch must not be read in parts."""
    generates: ClassVar[bool] = False
    """Whether it writes the text of its target, one token after the other."""
    needs_encoder: ClassVar[bool] = False
    """Whether what it writes is read off another set, by cross-attention."""
    metrics: tuple[str, ...] = ()
    """By which metrics of tasks/metrics.py its texts are judged, once a whole split was written."""
    hides: ClassVar[str] = ""
    """How it keeps the target from the input that it is about, in a word (`shifted`, `masked`, `denoised`);
    empty: it does not, so that no input may read the column it predicts. `reconstructed`: it wants back what it
    reads."""
    special_ids: tuple[str, ...] = ()
    """Names of the special ids that it needs in the encoding of its texts, such as `mask`."""
    say: Callable[[str], None] = staticmethod(print)
    """Where it tells what it had to leave out."""
    skipped: Mapping[str, str] = {}
    """Samples that it could not judge, by key, and why."""
    notes: tuple[str, ...] = ()
    """What `fit` found worth telling of the training data."""

    def columns(self) -> tuple[str, ...]:
        """The data columns that hold its targets, where these are not inputs."""
        return (self.target,) if self.target_is_column else ()

    def inputs(self) -> tuple[str, ...]:
        """The inputs that it is about: never withheld from a sample."""
        return () if self.columns() else (self.target,)

    def makes(self) -> tuple[str, ...]:
        """The inputs that it makes itself of others, and no data set has."""
        return ()

    def meet(self, choppers: Mapping[str, Chopper]) -> Task:
        """The task after it has seen the choppers of all inputs (and with them the encodings of texts)."""
        return self

    def window(self, context: int, encoder_context: int) -> int:
        """How many tokens of a corpus it reads at once, for a core of this context (and an encoder of that one)."""
        return context

    def alter(self, sets: dict[str, SetPlan]) -> dict[str, SetPlan]:
        """The sets after it has changed what the model will read (hidden a word, say), by the samples' own seeds."""
        return sets

    def asked(self, choppers: Mapping[str, Chopper]) -> Mapping[str, Chopper]:
        """The choppers of samples that someone asks about, rather than trains on."""
        return choppers

    def answering(self) -> Task:
        """The task as it answers what it is asked: one that hides things to train hides nothing then."""
        return self

    def set_of(self, sets: Mapping[str, SetPlan]) -> str:
        """The set whose slots it judges: what is written stands in `main`, all else is read by the first core."""
        return "main" if self.generates else next(iter(sets))

    def fit(self, data: TrainingColumns) -> Task:
        """The task after it has looked at the training data's targets (their classes, their mean); most need not."""
        return self

    def check(self, value: Any) -> None:
        """Raises DataError for a value of one of its `columns` that it cannot be asked for: the sample is a bad one."""

    def save(self, folder: Path) -> None:
        """Keep what `fit` found in `RUN/assets/<task>/`, so that a run works without its data."""

    def load(self, folder: Path) -> Task:
        """The task with what `save` kept."""
        return self

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        """The head that answers this task; the `Model` owns it."""
        raise NotImplementedError

    def targets(self, planned: SetPlan) -> Targets:
        """Which slots are judged, and against what; computed on the CPU from the plan."""
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Term]:
        """The named loss terms of one micro-batch, each counted `targets.count` times; the first is reported
        as `loss`."""
        raise NotImplementedError

    def measure(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Sums of one batch from which, added up over a whole split, `summary` makes the metrics."""
        return {}

    def pairs(self, output: Tensor, targets: Targets, planned: SetPlan) -> list[tuple[str, str]]:
        """What a batch's output says, as text, beside what is true, where a text is read off it at once."""
        raise NotImplementedError

    def answers(self, output: Tensor, targets: Targets, planned: SetPlan) -> list[dict[str, Any]]:
        """Every sample's answer, in words, from a batch's output; `error` where there is nothing to answer."""
        return [self.answer(row) for row in output]

    def answer(self, scores: Tensor) -> dict[str, Any]:
        """One sample's answer in words, where the output has one row per sample."""
        raise NotImplementedError

    @property
    def measures(self) -> Mapping[str, Metric]:
        """What `summary` gives, by name, known before anything is measured."""
        return {"loss": LOSS}

    def with_search(self, **given: Any) -> Task:
        """The task that searches for what it writes in another way (`beams`, `length_penalty`, `no_repeat`);
        most search for nothing."""
        return self

    def summary(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The metrics of a whole split from added-up sums: `loss` (of the first term), `count`, those of
        `measure`, and, of text, its `bytes`."""
        return {"loss": float(sums["loss"] / sums["count"].clamp(min=1))}
