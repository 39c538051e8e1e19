"""Judges of what is generated, got ready for a training or a trained run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ...data.base import Dataset
from ...tasks.base import Task
from ...tasks.judging import TrainingItems
from ...tokenizers.base import Chopper, RunPart, readable
from ...tokenizers.files.reading import DataError
from ..settings.config import Config


def ready_judges(
    config: Config, owner: str, task: Task, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None
) -> None:
    """Get the judges of the task `owner` ready: from `assets/<judge>/`, or, where the `dataset` is given, for the first
    time, and keep them there. Raises DataError where a judge compares with a data column and there is none, and where
    it cannot judge such items."""
    column = config.wiring.columns.get(task.target, "")
    for name, judge in task.judges.items():
        if (assets / name).exists() or dataset is None:
            judge.load(assets / name, open_run)
            continue
        if judge.columns and not dataset.holds_samples:
            told = f"it compares with column {judge.columns[0]!r}, and dataset {dataset.name!r} has texts alone"
            raise DataError(f"tasks.{owner}.metrics.{name}: {told}")
        chopper = task.choppers[task.target]
        if chopper.vocabulary is None:
            told = f"the input {task.target!r} has no ids, so that no item of it can be generated and judged"
            raise DataError(f"tasks.{owner}.metrics.{name}: {told}; of pictures `use: image_ids` has some")

        def items(chopper: Chopper = chopper, encoded: bool = judge.encoded) -> Iterator[Any]:
            found = readable(dataset.training_items([column]), chopper.decode, "item", "to judge by")
            return map(chopper.vocabulary.encode, found) if encoded else found

        def values(name: str) -> Iterable[Any]:
            return dataset.opened("train").column(name)

        try:
            judge.fit(open_run, TrainingItems(items, values, chopper.vocabulary))
        except ValueError as error:
            raise DataError(f"tasks.{owner}.metrics.{name}: {error}") from error
        judge.save(assets / name)
