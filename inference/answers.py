"""The predictions for the samples of a split as rows, with the known true values:

{"key": "cat/1.jpg", "kind": {"class": "cat", "probabilities": {...}}, "targets": {"label": "cat"}}
{"key": "cat/2.jpg", "targets": {"label": "cat"}, "error": "image: cat/2.jpg is cut short"}

A sample that lacks inputs has `"without": ["sound"]`. An evaluation adds `loss`, the loss of each task, and `group`,
the value of the column `data.split.group`. The rows of several folds begin with `seed` and `fold`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.samples import Samples
from ..data.split import SampleSplit
from ..files.progress import counting
from ..tasks.base import Task
from .evaluator import TrainedRun
from .generate import Generating
from .predict import stream_predictions

RESERVED = ("seed", "fold", "key", "group", "without", "loss", "targets", "error")
"""The columns of a row that are not the names of tasks."""
ALWAYS = ("key", "targets", "error")
"""The columns that all versions of chopmix wrote. A run of an older version may have a task with the name of another
column; this column is then left out."""


def target_column(trained: TrainedRun, task: Task) -> str | None:
    """Returns the data column with the true values of a task: labels, or texts that are generated. None: there is none
    that could be compared with an answer."""
    if task.needs.columns:
        return next(iter(task.needs.columns))
    is_text = task.needs.generates and trained.choppers[task.target].kind == "text"
    return trained.wiring.columns[task.target] if is_text else None


def plain(value: Any) -> Any:
    """Returns a value as JSON allows it: an array becomes a list, bytes become text."""
    if isinstance(value, np.ndarray | np.generic | Tensor):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return value if isinstance(value, str | int | float | bool | list | dict | tuple) else str(value)


def calibrated(
    trained: TrainedRun, answer: Mapping[str, Any], calibration: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Returns an answer of all tasks with calibrated probabilities. `calibration` contains the stored values by
    task."""
    changed = {name: trained.tasks[name].calibrated(answer[name], calibration[name])
               for name in calibration if name in answer and name in trained.tasks}  # fmt: skip
    return {**answer, **changed}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The predictions of a model for a split, computed while they are read."""

    trained: TrainedRun
    split: SampleSplit
    """The samples as the model reads them."""
    samples: Samples
    """The same samples, with the columns of the true values."""
    how: Generating = Generating()
    calibration: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The stored values by task with which probabilities are calibrated; empty: they are not."""
    group: str | None = None
    """The data column of the groups of samples; None: the rows have no group."""
    losses: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """The loss by task and number of the sample; empty: the rows have no losses."""
    before: Mapping[str, Any] = field(default_factory=dict)
    """The first columns of all rows, such as the number of the fold."""

    def rows(self, numbers: Sequence[int] | None = None) -> Iterator[list[dict[str, Any]]]:
        """Yields the rows of the samples of each forward pass, in the order of the data set, with a progress bar.
        `numbers`: the numbers of the samples (None: all)."""
        trained, numbers = self.trained, range(len(self.split)) if numbers is None else numbers
        parts = (
            [SampleIndex(0, 0, number) for number in numbers[first : first + trained.rows]]
            for first in range(0, len(numbers), trained.rows)
        )
        predictions = stream_predictions(trained, self.split, parts, self.how)
        with counting("samples", len(numbers)) as count:
            while True:
                with trained.arithmetic():  # not while the caller uses the rows
                    answers = next(predictions, None)
                if answers is None:
                    return
                yield [self.row(number, answer) for number, answer in answers.items()]
                count(len(answers))

    def row(self, number: int, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the row of a sample: its key, the answers, the known true values, and the error of a bad sample. A
        column of `RESERVED` that is the name of a task is left out."""
        answers = calibrated(self.trained, answer, self.calibration)
        known, targets = self.known_values(number), self.target_columns
        columns = {**self.before, "key": self.split.samples.keys[number]}
        if self.group and known.get(self.group) is not None:
            columns["group"] = plain(known[self.group])
        losses = {name: of_task[number] for name, of_task in self.losses.items() if number in of_task}
        true = {name: targets[name].as_answer(plain(value)) for name, value in known.items() if name in targets}
        error = answers.pop("error", None)
        end = {"loss": losses, "targets": true, "error": error}
        further = {name: value for name, value in end.items() if value and name not in self.trained.tasks}
        return {name: value for name, value in columns.items() if name not in answers} | answers | further

    def known_values(self, number: int) -> dict[str, Any]:
        """Returns the known true values of a sample and its group, by column."""
        columns, row = dict.fromkeys([*self.target_columns, *([self.group] if self.group else [])]), {}
        with suppress(ValueError, OSError):  # a sample that cannot be read; its answer says so
            row = self.samples.row(number, columns.keys()) if columns else {}
        return {name: row[name] for name in columns if row.get(name) is not None}

    @cached_property
    def target_columns(self) -> dict[str, Task]:
        """The data columns with true values, each with its task (see `target_column`)."""
        tasks = self.trained.tasks.values()
        return {column: task for task in tasks if (column := target_column(self.trained, task))}
