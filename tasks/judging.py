"""The contract of judges, which score generated items with another run or a library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..tokenizers.base import RunPart
from ..tokenizers.encoding.base import Vocabulary


class Generated(NamedTuple):
    """One generated item and the true item of its sample."""

    item: Any
    """The generated item; None if it is incomplete."""
    true: Any
    """The true item; None if there is none, as in a corpus."""
    labels: Mapping[str, Any]
    """The values of the sample's columns that the judge reads."""


class TrainingItems(NamedTuple):
    """The training data that a judge is fitted on."""

    items: Callable[[], Iterable[Any]]
    """Returns an iterator over the items of the generated input; for judges with `encoded`, over their lists of ids
    without special ids."""
    column: Callable[[str], Iterable[Any]]
    """Returns the values of a data column, without samples that lack it."""
    vocabulary: Vocabulary
    """The vocabulary that encodes the items."""


class Figure(NamedTuple):
    """The meaning of a figure that a judge computes."""

    unit: str
    larger_is_better: bool | None = False
    """None: runs cannot be compared by this figure."""


class Judge:
    """Base of all judges. A judge is one file in `tasks/judges/`; the keyword-only parameters of its `__init__` are its
    keys in a YAML.

    metrics: {accepted: {use: accepted_by, run: runs/vision/mnist, column: label}}
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The data columns that generated items are compared with."""
        return ()

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The unit and direction of each figure, by suffix. A judge named `accepted` in the YAML with the suffixes `""`
        and `"_real"` defines the metrics `accepted` and `accepted_real`."""
        raise NotImplementedError

    encoded: ClassVar[bool] = False
    """Whether `fit` receives the training items as lists of ids, without special ids, instead of decoded items."""

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        """Prepares the judge at the start of training. `open_run` opens a trained run by its folder. Raises ValueError
        if the judge cannot score such items."""

    def save(self, folder: Path) -> None:
        """Saves what the judge needs in `RUN/assets/task-TASK/NAME`, so that the run works without other runs."""

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        """Loads what `save` has written. Raises DataError if it is missing or damaged."""

    def counts(self, figures: Mapping[str, float], items: int) -> Mapping[str, int]:
        """Returns the number of items that each figure is measured on, by name, for figures that are not measured on
        all `items`."""
        return {}

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        """Returns the figures of generated items, by the names in `figures`. Undefined figures are omitted, such as a
        share of the complete items if no item is complete."""
        raise NotImplementedError


def is_known(value: Any) -> bool:
    """Returns whether a sample has a value in a column: neither None nor NaN, which tables use for a missing value."""
    return value is not None and value == value
