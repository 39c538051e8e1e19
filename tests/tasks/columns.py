"""Training data in memory for tests of `Task.fit`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from chopmix.tasks.base import TrainingColumns


class Column(TrainingColumns):
    """Training data with one column. `lines` are the printed remarks."""

    def __init__(self, values: Sequence[Any]):
        self.values, self.lines = values, []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def column(self, name: str) -> Iterator[Any]:
        return (value for value in self.values if value is not None)

    def __len__(self) -> int:
        return len(self.values)
