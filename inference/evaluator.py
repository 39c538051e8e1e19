"""The contract of evaluators: what is measured of a model while it is trained, and at the end of training.

An evaluator is one file in `inference/evaluators/`, or in the `evaluators/` of a project; a YAML names it by its file:

    evaluation: {also: {cards: {use: mylab.evaluators:Cards, decks: 3}}}
    evaluation: {attribution: true}      short for {also: {attribution: {use: attribution}}}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from rich.table import Table

from ..data.base import Dataset
from ..data.processes import Processes
from ..data.split import Split
from ..files.trust import Trust
from ..models.model import Model
from ..tasks.base import Problems, Task, Wiring
from ..tokenizers.base import Chopper
from .pages import Samples

Say = Callable[[str], None]
"""Prints a line."""


class TrainedModel(ABC):
    """A model, in training or trained, with everything that belongs to it. A `Run` is one."""

    folder: Path
    """The folder of the run."""
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    processes: Processes
    """The processes that evaluate together."""
    precision: str
    """`float32` or `bfloat16`: the precision of matrix products."""

    @property
    @abstractmethod
    def wiring(self) -> Wiring:
        """What follows from the inputs and tasks of its configuration."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """The seed of its training."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Samples (of a text corpus: windows) in one forward pass of an evaluation, `evaluation.rows`."""

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """The modules and hosts that its configuration may use."""

    @property
    def model_device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    @abstractmethod
    def arithmetic(self) -> AbstractContextManager[None]:
        """A context in which the model computes in its `precision`."""

    @property
    @abstractmethod
    def has_dataset(self) -> bool:
        """Whether its configuration names a data set; that of an imported model does not."""

    @abstractmethod
    def dataset(self) -> Dataset:
        """The data set of its training. Raises ValueError for an imported model, which has none."""

    @abstractmethod
    def open(self, split: str, dataset: Dataset | None = None) -> Split:
        """A split of the data set of its training, or of another one. Raises DataError for data that cannot be
        read."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an evaluator returns: metrics are logged, the rest is shown."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """By full name: `val/return_at_500`."""
    samples: Samples = Samples()
    """What the model generates."""
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()

    @classmethod
    def joined(cls, results: Iterable[Result]) -> Result:
        """Several results as one."""
        every = list(results)
        samples = [each.samples for each in every if each.samples.text or each.samples.rows]
        return cls(
            metrics={name: value for each in every for name, value in each.metrics.items()},
            samples=samples[-1] if samples else Samples(), tables=[table for each in every for table in each.tables],
            lines=[line for each in every for line in each.lines],
        )  # fmt: skip


class Evaluator:
    """Base of all evaluators. The keyword-only parameters of the constructor are its keys in a YAML."""

    when: ClassVar[Literal["evaluations", "end", "saved"]] = "evaluations"
    """`evaluations`: at each evaluation of the validation split. `end`: once, after the last step. `saved`: once, after
    the last checkpoint is written, in the first process alone and with the best checkpoint."""
    short: ClassVar[str] = ""
    """The key that a single value stands for: `in_context: 100` is `in_context: {samples: 100}`. Empty: only true and
    false are accepted."""

    def metrics(self) -> Mapping[str, bool]:
        """The names of its metrics by which the best checkpoint may be chosen, each with whether larger is better."""
        return {}

    def problems(self, name: str, wiring: Wiring) -> Problems:
        """Problems of a configuration in which this evaluator has the name `name`."""
        yield from ()

    def check(self, trained: TrainedModel, say: Say) -> None:
        """Called before the first step of training. Raises ValueError if the model cannot be evaluated."""

    def run(self, trained: TrainedModel, say: Say) -> Result:
        """Evaluate a model, which is in evaluation mode. Called in all processes unless `when` is `saved`. `say` prints
        what happens meanwhile."""
        raise NotImplementedError
