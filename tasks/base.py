"""What every task is made of: supervised slots and targets in, named loss terms and metrics out. No parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from ..models.batch import Batch, Targets
from ..models.generation.beam_search import Search
from ..tokenizers.base import Chopper


class Metric(NamedTuple):
    """A figure of a whole split: its unit, whether a larger one is better, and what it is made of: added-up sums, or
    what was said beside what is true."""

    unit: str
    larger_is_better: bool = False
    of_sums: Callable[[Mapping[str, Tensor]], float | None] | None = None
    """Makes it of the sums: `loss` (of the first term), `count`, those of `Task.measure`, and, of text, its `bytes`;
    None where they do not tell it."""
    of_texts: Callable[[Sequence[str], Sequence[str]], float] | None = None
    """Makes it of the texts of a split, as they were said, and the true ones."""

    @property
    def in_nats(self) -> bool:
        """Whether it is a likelihood, so that differences of it are bits."""
        return self.unit.startswith("nats")


def mean_loss(sums: Mapping[str, Tensor]) -> float:
    """The loss per target."""
    return float(sums["loss"] / sums["count"].clamp(min=1))


LOSS = Metric("nats per target", of_sums=mean_loss)


def figures(metrics: Mapping[str, Metric], sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Those of the metrics that added-up sums tell."""
    found = {name: metric.of_sums(sums) for name, metric in metrics.items() if metric.of_sums}
    return {name: value for name, value in found.items() if value is not None}


@runtime_checkable
class TrainingColumns(Protocol):
    """What a task may see of the training data before it is trained: one column at a time."""

    def __len__(self) -> int:
        """How many samples there are."""

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, of all samples that have one, in order."""

    def say(self, text: str) -> None:
        """Tell the user what is worth telling of them."""


def whole_context(context: int, encoder_context: int) -> int:
    """As many tokens of a corpus as the core reads."""
    return context


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a task is about, told by its options alone: what others ask of it before there are data or a model."""

    columns: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """The data columns that it reads as they are, and what raises DataError for a value that it cannot be asked for:
    the sample is a bad one then."""
    inputs: tuple[str, ...] = ()
    """The inputs that it is about: never withheld from a sample."""
    makes: tuple[str, ...] = ()
    """The inputs that it makes itself of others, and no data set has."""
    generates: bool = False
    """Whether it writes the text of its target, one token after the other."""
    encoder: bool = False
    """Whether what it writes is read off another set, by cross-attention."""
    hides: str = ""
    """How it keeps the target from the input that it is about, in a word (`shifted`, `masked`, `denoised`); empty: it
    does not, so that no input may read the column it predicts. `reconstructed`: it wants back what it reads."""
    special_ids: tuple[str, ...] = ()
    """Names of the special ids that it needs in the encoding of its texts, such as `mask`."""
    whole_batch: bool = False
    """Whether its loss judges the samples of a batch together, so that a batch must not be read in parts."""
    window: Callable[[int, int], int] = whole_context
    """How many tokens of a corpus it reads at once, for a core of this context (and an encoder of that one)."""
    asked: Mapping[str, Callable[[Chopper], Chopper]] = field(default_factory=dict)
    """How inputs are chopped of samples that someone asks about, rather than trains on."""


class Task:
    """Base of all tasks. `target` names the input (or data column) that the task is about."""

    target: str
    weight: float = 1.0
    """What its loss is multiplied with beside those of other tasks."""
    search: Search = Search()
    """How texts are searched for, where it writes or reads off some."""
    choppers: Mapping[str, Chopper] = {}
    """Those of all inputs, and with them the encodings of texts: set once they are fitted."""
    Learned: ClassVar[Any] = None
    """The record (of pydantic) of what `fit` finds, kept in the run as `assets/task-NAME/<record>.json`, so that a run
    works without its data; None: it learns nothing."""
    learned: Any = None
    """What `fit` found."""
    asks: bool = False
    """Whether it is asked, rather than trained or evaluated: it hides nothing then."""

    @property
    def needs(self) -> Needs:
        """What it is about."""
        raise NotImplementedError

    def fit(self, data: TrainingColumns) -> Any:
        """What it must know of the training data's targets (their classes, their mean), as its `Learned`; most need
        not."""
        return None

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> nn.Module:
        """The head that answers this task; the `Model` owns it."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Which slots are judged, and against what, computed on the CPU from the plan; and the batch, in which it may
        have changed what the model will read (hidden a word, say), by the samples' own seeds."""
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The loss terms of one micro-batch by name, each summed over its targets; all are added up, and the first is
        reported as `loss`. Sums, never means: training divides by the targets of the *global* batch, so that
        accumulation, processes and ragged targets agree by construction."""
        raise NotImplementedError

    def measure(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Sums of one batch from which, added up over a whole split, its metrics are made."""
        return {}

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """What an evaluation tells of it, by name, `loss` first."""
        return {"loss": LOSS}

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Every sample's answer, in words, from a batch's output; `error` where there is nothing to answer. What it
        reads off as a text is `text`."""
        raise NotImplementedError


def asking(task: Task) -> Task:
    """The task as it answers what it is asked: one that hides things to train hides nothing then."""
    made = copy(task)
    made.asks = True
    return made
