"""The contract of judges. A judge scores generated items with another trained run or with a library."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..tokenizers.base import RunPart
from ..tokenizers.encoding.base import Vocabulary


class Generated(NamedTuple):
    """One generated item and the true item of its sample."""

    item: Any
    """The generated item; None if the generated ids do not form an item (incomplete), such as too few ids for an
    image."""
    true: Any
    """The true item; None if the sample has none, such as a sample of a corpus."""
    labels: Mapping[str, Any]
    """The values of the judge's `columns` in this sample, by column name."""
    number: int = -1
    """The number of the sample; -1: it was generated without a sample."""


class TrainingItems(NamedTuple):
    """The training data that a judge is fitted on."""

    items: Callable[[], Iterable[Any]]
    """A function that returns the training items of the generated input; for a judge with `encoded`, each item is a
    list of ids without special ids."""
    column: Callable[[str], Iterable[Any]]
    """A function that returns the values of a data column. Samples without a value are skipped."""
    vocabulary: Vocabulary | None
    """The vocabulary that encodes the items; None if items are generated without ids."""


class Figure(NamedTuple):
    """The unit and direction of a number (figure) that a judge computes."""

    unit: str
    larger_is_better: bool | None = False
    """True: a larger value is better. False: a smaller value is better. None: neither; runs cannot be compared by
    it."""


class Judge:
    """Base class of all judges. Each file in `tasks/judges/` contains one judge; the keyword-only parameters of its
    `__init__` are its keys in a YAML.

        metrics: {accepted: {use: accepted_by, run: runs/vision/mnist, column: label}}
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the data columns with which the judge compares generated items. The default is no column."""
        return ()

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The unit and direction of each figure, by suffix. A judge named `accepted` in the YAML with the suffixes `""`
        and `"_real"` defines the metrics `accepted` and `accepted_real`."""
        raise NotImplementedError

    encoded: ClassVar[bool] = False
    """Whether `TrainingItems.items` yields lists of ids without special ids, instead of decoded items."""

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        """Prepares the judge at the start of training. `open_run` opens the trained run in a folder. Raises ValueError
        if the judge cannot score the items of these data."""

    def save(self, folder: Path) -> None:
        """Saves what the judge needs in `folder`, which is `assets/task-TASK/NAME` of the run. Afterwards, the run can
        be used without the other run that the judge needs."""

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        """Loads the files that `save` has written. Raises DataError if a file is missing or damaged."""

    def counts(self, figures: Mapping[str, float], items: int) -> Mapping[str, int]:
        """Returns the numbers of items on which figures are measured, by the names in `figures`. Figures that are not
        in the result are measured on all `items`; this is the default for all figures."""
        return {}

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary | None) -> dict[str, float]:
        """Returns the figures of generated items, by the suffixes in `figures`. Undefined figures are omitted, such as
        a share of the complete items (not None) if there are none."""
        raise NotImplementedError


def is_known(value: Any) -> bool:
    """Returns whether a column's value is neither None nor NaN (tables use NaN for a missing value)."""
    return value is not None and value == value
