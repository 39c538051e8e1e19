"""Reports about the answers of a task: tables, pictures and the worst answers. A reporter receives the answers of a
split one by one and keeps only what its tables need."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

WORST = 24
"""The number of the worst answers that a report shows."""


@dataclass(frozen=True)
class Table:
    """A table of a report. `name` is the end of the name of its CSV file; `note` states what it is computed from. If
    `shown` is not None, a page shows only this number of rows; the file has all."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    shown: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture of a report. `draw` draws it on the axes of matplotlib; `size` is its width and height in inches."""

    name: str
    title: str
    draw: Callable[[Any], None]
    size: tuple[float, float] = (5.0, 4.0)


@dataclass(frozen=True)
class Mistake:
    """One of the worst answers: the number and the key of its sample, what is wrong, as text, and the answer and the
    true value, which a page draws if they consist of numbers."""

    number: int
    key: str
    text: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    true: Any = None


@dataclass(frozen=True)
class Section:
    """The report of one task."""

    samples: int
    """The number of samples with an answer and a true value."""
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    worst: Sequence[Mistake] = ()
    """The worst answers, the worst one first."""
    lines: Sequence[str] = ()
    """Sentences that summarize the report."""
    saved: Mapping[str, Any] = field(default_factory=dict)
    """Values that are stored with the run for its later predictions, such as a temperature."""


class Reporter(ABC):
    """Base class of reporters."""

    def __init__(self):
        self._worst: list[tuple[float, int, Mistake]] = []
        self._order = count()

    @abstractmethod
    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        """Adds the answer to a sample. `true` is the known true value in the form of `Task.as_answer`."""

    @abstractmethod
    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        """Returns the report on all answers. `saved` contains the values that an earlier report stored (see
        `Section.saved`). `store`: whether this report may store values, because it is about the validation split."""

    def note_mistake(self, badness: float, mistake: Mistake) -> None:
        """Keeps a mistake if it is one of the WORST ones. A larger `badness` is worse; of equal ones, the first is
        kept."""
        heapq.heappush(self._worst, (badness, -next(self._order), mistake))
        if len(self._worst) > WORST:
            heapq.heappop(self._worst)

    def worst(self) -> list[Mistake]:
        """Returns the kept mistakes, the worst one first."""
        return [mistake for _, _, mistake in sorted(self._worst, key=lambda each: each[:2], reverse=True)]


def divided(numerator: float, denominator: float) -> float | None:
    """Returns a quotient; None if the denominator is 0."""
    return numerator / denominator if denominator else None
