"""The predictions of a run for all samples of a data set (`--data`), and parts of a data set (`--shard`): sample k
belongs to shard k mod n. `merge.py` puts the files of all shards together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..data.base import Dataset
from ..data.sampler import SampleIndex
from ..data.samples import Samples, Visible
from ..data.skipped import IsBad
from ..files.errors import RunError
from ..files.printing import say_aside
from ..inference.answers import ALWAYS, Answers
from ..inference.evaluation import Measured
from ..inference.requests import absent_lines, readable
from ..tasks.base import prediction_copy, target_columns
from .build import read_samples
from .own_data import Whole, dataset_for
from .read_ahead import read_ahead
from .run import Run, check_predicts, prediction_choppers


class Shard(NamedTuple):
    """A part of the samples of a data set: those whose number has the remainder `index` modulo `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str | None) -> Shard:
        """Returns the shard that a text such as `0/4` names, the first of four. None: all samples. Raises RunError for
        another text."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text or "0/1", re.ASCII)
        if not match or int(match[1]) >= int(match[2]):
            raise RunError(f"--shard {text!r}: write I/N with I from 0 to N - 1, such as 0/4 for the first of four")
        return cls(int(match[1]), int(match[2]))

    def of_samples(self, samples: Samples) -> Samples:
        """Returns the samples of this shard. Raises RunError if there are none."""
        if self.count == 1:
            return samples
        if self.index >= len(samples):
            raise RunError(f"--shard {self.index}/{self.count}: there are only {len(samples):,} samples")
        return samples.select(np.arange(self.index, len(samples), self.count))

    def of_dataset(self, dataset: Dataset, split: str) -> Dataset:
        """Returns a data set with the samples of this shard of a split. Raises RunError for a text corpus."""
        if not dataset.holds_samples:
            raise RunError(f"{dataset.title(split)} is a text corpus, which has no samples to divide; remove --shard")
        samples, columns = self.of_samples(dataset.opened(split)), (*dataset.columns, *dataset.joined)
        return Whole(samples, columns, whole_of=f"{dataset.title(split)}, shard {self.index}/{self.count}")


@dataclass(frozen=True, kw_only=True)
class Questions(Answers):
    """The predictions of a run for a data set, which may lack the true values."""

    title: str
    """The name of the data, for messages."""

    @classmethod
    def of(cls, run: Run, dataset: Dataset, split: str, shard: Shard, calibrated: bool) -> Questions:
        """Returns the predictions for a split of a data set. The model does not read what the tasks predict. Raises
        RunError for a run that can only continue texts, for a task whose head the imported directory lacked, and for a
        data set without any of the inputs; DataError if the data cannot be read."""
        run.check_heads()
        check_predicts(run, [], run.tasks)
        title = dataset.title(split)
        if not dataset.holds_samples:
            raise RunError(f"{title} is a text corpus; predictions need separate samples, such as a table")
        inputs = {name: run.wiring.columns[name] for name in readable(run, run.tasks)}
        available = (*dataset.columns, *dataset.joined)
        if not {*inputs.values()} & {*available}:
            names = ", ".join(dict.fromkeys(inputs.values()))
            raise RunError(f"{title} has none of the columns {names}; it has {', '.join(available)}")
        for name, column in inputs.items():
            if column not in available:
                say_aside(f"{title} has no column {column!r}: predicted without {name}")
        samples = shard.of_samples(dataset.opened(split))
        visible = Visible(samples, {*inputs.values()})
        read = read_samples(
            run.config, visible, split, prediction_choppers(run), say_aside, labels=target_columns(run.tasks)
        )
        for number, why in samples.damaged():
            read.skipped.note(IsBad(number, why))
        read = replace(read, tasks={name: prediction_copy(task) for name, task in run.tasks.items()})
        calibration = run.calibration() if calibrated else {}
        return cls(trained=run, split=read, samples=samples, title=title, calibration=calibration)


def check_names(run: Run) -> None:
    """Raises RunError if a task has the name of another column of the rows."""
    if names := [name for name in run.tasks if name in ALWAYS]:
        raise RunError(f"{run.folder}: the task {names[0]!r} has the name of a column of the output; rename it")


def questions_for(
    run: Run, data: str | None, split: str, shard: Shard = Shard(), calibrated: bool = False
) -> Questions:
    """Returns the predictions for the data set that `--data` names, or for the data set of the run's training if `data`
    is None. The data may lack the columns with the true values. `calibrated`: with calibrated probabilities. Raises
    RunError or DataError if the data cannot be read."""
    if data is None:
        return Questions.of(run, run.dataset(), split, shard, calibrated)
    try:
        return Questions.of(run, dataset_for(run, data, split), split, shard, calibrated)
    except ValueError as error:
        try:
            return Questions.of(run, dataset_for(run, data, split, labels=False), split, shard, calibrated)
        except ValueError:  # not because of the labels
            raise error from None


def ahead_rows(
    answers: Answers, run: Run, numbers: Sequence[int] | None = None, say: Callable[[str], None] = say_aside
) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows of `answers`, whose samples are read ahead. `say` is called with messages about items that do not
    fit into the context, and about inputs that samples lack."""
    check_names(run)
    absent: list[Sequence[str]] = []
    with read_ahead(answers.split, run.config.data.workers):
        for group in answers.rows(numbers):
            absent += [row["without"] for row in group if "without" in row and "without" not in run.tasks]
            yield group
    total = len(answers.split) if numbers is None else len(numbers)
    for line in [*answers.split.skipped.shortened(), *absent_lines(run, absent, total)]:
        say(line)


def losses_by_number(result: Measured) -> dict[str, dict[int, float]]:
    """Returns the loss of each sample of an evaluation, by task and number of the sample."""
    parts = result.by_sample.items()
    return {name: dict(zip(sums.numbers.tolist(), sums.nats.tolist(), strict=True)) for name, sums in parts}


def parts_of(count: int, rows: int) -> Iterator[list[SampleIndex]]:
    """Yields the indices of `count` samples in their order, `rows` at a time."""
    for first in range(0, count, rows):
        yield [SampleIndex(0, 0, number) for number in range(first, min(first + rows, count))]


@dataclass
class Count:
    """The number of samples, and of those without a prediction because of an error."""

    samples: int = 0
    failed: int = 0

    def counted(self, groups: Iterable[list[dict[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
        """Yields groups of rows and counts them."""
        for group in groups:
            self.samples += len(group)
            self.failed += sum("error" in row for row in group)
            yield group

    def status(self, strict: bool) -> int:
        """Prints the number of failed samples, if there are any. Returns the exit status: 1 if all samples failed, 3 if
        some failed and `strict` is true, else 0."""
        if self.failed:
            say_aside(f"{self.failed:,} of {self.samples:,} samples have no result because of errors")
        if self.failed and self.failed == self.samples:
            return 1
        return 3 if self.failed and strict else 0
