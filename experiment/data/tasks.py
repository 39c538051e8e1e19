"""The tasks of a configuration, with what they learn from the training data (classes, a mean and a std); with the
choppers that they need, `choppers_and_tasks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...data.base import Dataset
from ...data.samples.dataset import Samples
from ...tasks.base import Task
from ...tokenizers.base import Chopper, RunPart, no_run
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import read_record
from ...tokenizers.files.writing import write_json
from ..settings.config import Config
from .choppers import build_choppers
from .judges import ready_judges


class TrainingData:
    """The training samples, one column at a time, as `Task.fit` gets them. `say` prints a line; `columns` maps inputs
    to data columns."""

    def __init__(self, samples: Samples, say: Callable[[str], None], columns: Mapping[str, str] | None = None):
        self.samples, self.say, self.columns = samples, say, columns or {}

    def __len__(self) -> int:
        return len(self.samples)

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column in the order of the samples, without samples that lack it."""
        return self.samples.column(name)

    def items(self, name: str) -> Iterator[Any]:
        """The raw values of one input."""
        return self.samples.column(self.columns.get(name, name))


def choppers_and_tasks(
    config: Config, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Chopper], dict[str, Task]]:  # fmt: skip
    """Choppers and tasks by name, loaded from `assets`, or fitted on the dataset and saved there. `open_run` opens a
    trained run that is a part of this one. Raises DataError for a file that is missing or damaged, and for data that
    cannot be fitted on."""
    choppers = build_choppers(config, assets, dataset, open_run)
    return choppers, build_tasks(config, choppers, assets, dataset, say, open_run)


def build_tasks(
    config: Config, choppers: Mapping[str, Chopper], assets: Path | None = None, dataset: Dataset | None = None,
    say: Callable[[str], None] = print, open_run: Callable[..., RunPart] = no_run,
) -> dict[str, Task]:  # fmt: skip
    """The tasks by name. What a task learned is loaded from `assets/task-<name>/`, or fitted on the dataset's training
    split and saved there. Raises DataError for a file that is missing or damaged, and for data that a task cannot be
    fitted on."""
    made = {}
    for name, planned in config.wiring.tasks.items():
        task = made[name] = deepcopy(planned)
        task.choppers = choppers
        check_texts(name, task)
        check_through(name, task, made)
        folder = assets / f"task-{name}" if assets and task.Learned else None
        if folder and folder.exists():
            load_learned(task, folder)
        elif folder and dataset is not None and dataset.holds_samples:
            task.learned = task.fit(TrainingData(dataset.opened("train"), say, config.wiring.columns))
            save_learned(task, folder)
        elif folder and dataset is not None:
            column = next(iter(task.needs.columns), task.target)
            raise DataError(
                f"tasks.{name}: it needs a data set with the column {column!r}, and {dataset.name!r} is a text corpus"
            )
        elif folder and config.data.dataset is not None:
            raise DataError(
                f"tasks.{name}: {folder} is missing. It holds what the task learned of its data: copy complete runs. A "
                "run of an earlier version with `bounded` must be trained again"
            )
        if assets:
            ready_judges(config, name, task, assets / f"task-{name}", open_run, dataset)
    return made


def check_texts(name: str, task: Task) -> None:
    """Raises DataError for metrics of texts where what the task predicts is no text."""
    if task.texts and task.target in task.choppers and task.choppers[task.target].kind != "text":
        told = f"tasks.{name}.metrics: {', '.join(task.texts)} compare texts, and {task.target!r} is none"
        raise DataError(f"{told}; it can be judged by name: {{accepted: {{use: accepted_by, run: ...}}}}")


def check_through(name: str, task: Task, made: Mapping[str, Task]) -> None:
    """Raises DataError where a draft is refined through an input that none of the tasks before it refines, or of which
    nothing tells how many tokens it has."""
    before = {each.target: (other, each) for other, each in reversed(made.items()) if each.needs.refines}
    before.pop(task.target, None)
    for target in task.refining.through if task.needs.refines else ():
        if target not in before:
            possible = f"possible: {', '.join(reversed(before))}" if before else "there is none"
            raise DataError(f"tasks.{name}.refining.through: no task before it refines {target!r}; {possible}")
        other, first = before[target]
        if not (first.vocabulary.length or first.refining.tokens):
            told = f"must be given, since {name!r} is refined through {target!r}, which may have any number"
            raise DataError(f"tasks.{other}.refining.tokens: {told}")


def save_learned(task: Task, folder: Path) -> None:
    """Write what a task has learned, if it has learned something: `folder/classes.json` holds `["cat", "dog"]`; and
    what its judges need."""
    for name, judge in task.judges.items():
        judge.save(folder / name)
    if task.learned is not None:
        write_json(folder / file_name(task), TypeAdapter(task.Learned).dump_python(task.learned, mode="json"))


def load_learned(task: Task, folder: Path) -> Task:
    """The task, given what `save_learned` wrote. Raises DataError for a file that is missing or damaged."""
    task.learned = read_record(folder / file_name(task), task.Learned)
    return task


def file_name(task: Task) -> str:
    """The file name of what a task has learned: `classes.json` for the record `Classes`."""
    return f"{task.Learned.__name__.lower()}.json"
