"""The base class of evaluators, which compute metrics of a model during training or at its end.

An evaluator is one file in `inference/evaluators/` or in the `evaluators/` folder of a project. A YAML selects it by
its file name:

    evaluation: {also: {cards: {use: mylab.evaluators:Cards, decks: 3}}}
    evaluation: {attribution: true}      means {also: {attribution: {use: attribution}}}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from rich.table import Table

from ..data.base import Dataset
from ..data.split import SampleSplit, Split
from ..files.errors import RunError
from ..files.trust import Trust
from ..models.contract import Problems
from ..tasks.base import Wiring
from ..tokenizers.base import Chopper
from .pages import Samples
from .trained import TrainedModel

Say = Callable[[str], None]
"""A function that prints a line."""


class TrainedRun(TrainedModel, ABC):
    """What an evaluator receives: a model during or after training, with its choppers, settings and data. The class
    `Run` is a subclass."""

    folder: Path
    """The folder of the run."""
    step: int
    """The training step after which the weights were taken."""
    choppers: Mapping[str, Chopper]
    precision: str
    """The precision of matrix products: `float32` or `bfloat16`."""
    training_samples: int
    """The number of training samples that were read; 0: unknown (an older or imported run)."""
    training_inputs: Mapping[str, int]
    """The number of these samples with each input, by input."""
    missing: Sequence[str]
    """The names of the parameters that the imported model directory lacked. These parameters are untrained."""

    @property
    @abstractmethod
    def wiring(self) -> Wiring:
        """Facts that follow from the configuration alone, for example the data column of each input and the attention
        graphs."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """The random seed of the training."""

    @property
    @abstractmethod
    def training_seconds(self) -> float | None:
        """The duration of the training up to the last step that was logged; None: unknown (an imported run)."""

    @property
    @abstractmethod
    def group(self) -> str | None:
        """The column whose values are not divided between splits (`data.split.group`), such as the speaker. Samples
        with the same value are drawn together for intervals."""

    @property
    @abstractmethod
    def trust(self) -> Trust:
        """The Python modules and the network hosts that the configuration is allowed to use."""

    @abstractmethod
    def arithmetic(self) -> AbstractContextManager[None]:
        """Returns a context manager. Inside it the model computes matrix products in `precision`."""

    @property
    @abstractmethod
    def on_samples(self) -> bool:
        """Whether the model reads samples, not windows of a text corpus."""

    @property
    @abstractmethod
    def has_dataset(self) -> bool:
        """Whether the configuration names a data set. The configuration of an imported model names none."""

    @abstractmethod
    def dataset(self) -> Dataset:
        """Returns the data set of the training. Raises ValueError for an imported model, which has none."""

    @abstractmethod
    def open(self, split: str, dataset: Dataset | None = None) -> Split:
        """Returns the opened split named `split` of `dataset` (None: the data set of the training). Raises DataError if
        the data cannot be read."""

    @abstractmethod
    def as_split(self, samples: Any, for_prediction: bool = True) -> SampleSplit:
        """Returns samples in memory as a split, chopped as for prediction or as for training."""

    @abstractmethod
    def predict(self, samples: Any, *, say: Say = ..., **how: Any) -> Any:
        """Returns the predictions for samples in memory (see `Run.predict`)."""

    def never_missing(self, names: Collection[str]) -> list[str]:
        """Returns those of the inputs `names` that every training sample had, in the order of the model."""
        counts, samples = self.training_inputs, self.training_samples
        return [name for name in self.choppers if name in names and samples and counts.get(name) == samples]

    def check_heads(self) -> None:
        """Raises RunError if the imported model directory lacked the head of a task. The predictions of such a task
        would be random."""
        for name in self.tasks:
            if any(parameter.startswith(f"heads.{name}.") for parameter in self.missing):
                raise RunError(
                    f"{self.folder}: the imported directory has no head for {name!r}, so predictions would be random. "
                    f"Use `chopmix embed`, which needs no head, or train a head: `from: {self.folder}` in a YAML"
                )

    def text_task(self, excluded: Collection[str] = (), target: str | None = None) -> tuple[str, str]:
        """Returns (task, input): the names of the first task that generates `target`, and of this input. If `target` is
        None: of the first task whose generated input is not in `excluded`, or, if all are, of the first task that
        generates anything. Raises RunError if no task generates `target`, or if no task generates anything."""
        tasks = self.tasks.items()
        generated = [(name, task.target) for name, task in tasks if task.needs.makes_items]
        if target is not None and target not in [input for _, input in generated]:
            possible = ", ".join(input for _, input in generated) or "nothing"
            raise RunError(f"{self.folder} does not generate {target!r}; possible: {possible}")
        for name, input in generated:
            if input == target or (target is None and input not in excluded):
                return name, input
        if generated:
            return generated[0]
        raise RunError(
            f"{self.folder} generates nothing: none of its tasks ({', '.join(self.tasks)}) is language_modeling, "
            "sequence_to_sequence or masked_diffusion. `chopmix predict` prints its predictions"
        )


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of an evaluator. Metrics are logged; samples, tables and lines are displayed."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    """The values by complete name, such as `val/return_at_500`."""
    samples: Samples = Samples()
    """Generated samples."""
    tables: Sequence[Table] = ()
    lines: Sequence[str] = ()

    @classmethod
    def joined(cls, results: Iterable[Result]) -> Result:
        """Returns the combination of several results. Of the samples, only the last ones that contain a text or rows
        are kept."""
        results = list(results)
        samples = [result.samples for result in results if result.samples.text or result.samples.rows]
        return cls(
            metrics={name: value for result in results for name, value in result.metrics.items()},
            samples=samples[-1] if samples else Samples(),
            tables=[table for result in results for table in result.tables],
            lines=[line for result in results for line in result.lines],
        )


class Evaluator:
    """Base class of evaluators. The keyword-only parameters of the constructor are the keys of the evaluator in a
    YAML."""

    when: ClassVar[Literal["evaluations", "end", "saved"]] = "evaluations"
    """The time at which the evaluator runs. `evaluations`: at each evaluation on the validation split. `end`: once
    after the last step. `saved`: once after the last checkpoint is saved, only in the first process, with the weights
    of the best checkpoint."""
    short: ClassVar[str] = ""
    """The parameter that is set if a YAML contains a single value instead of a mapping. With `short = "samples"`,
    `in_context: 100` means `in_context: {samples: 100}`. Empty: a YAML accepts only true, false or a mapping."""

    def metrics(self) -> Mapping[str, bool]:
        """Returns the metrics by which the best checkpoint can be selected. Keys are complete names, such as
        `val/return`; a value is True if larger values are better."""
        return {}

    def problems(self, name: str, wiring: Wiring) -> Problems:
        """Yields the problems of a configuration as (path in the YAML, message). `name` is the key of this evaluator in
        `evaluation.also`."""
        yield from ()

    def check(self, trained: TrainedRun, say: Say) -> None:
        """Checks the model before the first training step. Raises ValueError if the model cannot be evaluated."""

    def run(self, trained: TrainedRun, say: Say) -> Result:
        """Evaluates a model, which is in evaluation mode, and returns the result. This method is called in all
        processes, or only in the first process if `when` is `saved`. `say` prints a progress message."""
        raise NotImplementedError
