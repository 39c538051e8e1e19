"""The contract of judges: figures of generated items that another run or a library gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..tokenizers.base import RunPart
from ..tokenizers.encoding.base import Vocabulary


class Generated(NamedTuple):
    """One generated item beside the true one."""

    item: Any
    """What was generated; None: no whole item."""
    true: Any
    """The item of the sample; None where nothing was given, as of a corpus."""
    labels: Mapping[str, Any]
    """The columns of the sample that the judge reads."""


class TrainingItems(NamedTuple):
    """The training data as a judge gets ready by them."""

    items: Callable[[], Iterable[Any]]
    """The items of what is generated, anew at every call; lists of ids, without special ones, for a judge of these."""
    column: Callable[[str], Iterable[Any]]
    """The values of a data column, without samples that lack it."""
    vocabulary: Vocabulary
    """By which the items are encoded."""


class Figure(NamedTuple):
    """What a figure means."""

    unit: str
    larger_is_better: bool | None = False
    """None: runs cannot be compared by it."""


class Judge:
    """Base of all judges: one file in `tasks/judges/`; keyword-only parameters of `__init__` are its keys in a YAML.

    metrics: {accepted: {use: accepted_by, run: runs/vision/mnist, column: label}}
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """The data columns that it compares with."""
        return ()

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Its figures, by what is put behind its name in the YAML: `{"": ..., "_real": ...}` of `accepted` gives the
        metrics `accepted` and `accepted_real`."""
        raise NotImplementedError

    encoded: ClassVar[bool] = False
    """Whether `fit` gets the training items as lists of ids, without special ones; else as they are."""

    def fit(self, open_run: Callable[[str | Path], RunPart], data: TrainingItems) -> None:
        """Get ready at the start of a training. `open_run` opens a trained run by its folder. Raises ValueError where
        it cannot judge such items."""

    def save(self, folder: Path) -> None:
        """Keep what it needs in `RUN/assets/task-TASK/NAME`, so that a run works without other runs."""

    def load(self, folder: Path, open_run: Callable[[str | Path], RunPart]) -> None:
        """Get ready from what `save` has written. Raises DataError where that is missing or damaged."""

    def counts(self, figures: Mapping[str, float], items: int) -> Mapping[str, int]:
        """The number of items behind each figure, by the figure's name. Only figures that are not measured on all
        `items` are included."""
        return {}

    def judge(self, generated: Sequence[Generated], vocabulary: Vocabulary) -> dict[str, float]:
        """The figures of generated items, by the names of `figures`; without those that these items do not have, such
        as a share of the complete ones where none is complete."""
        raise NotImplementedError


def is_known(value: Any) -> bool:
    """Whether a sample has a value in a column: not None, and not NaN, as tables write a missing one."""
    return value is not None and value == value
