"""The data columns that inputs and tasks read, compared with those of a data set."""

from __future__ import annotations

from collections.abc import Collection

from ...data.samples.dataset import Outcome, SampleDataset
from ...tasks.base import Task
from ...tokenizers.files.reading import DataError
from ..settings.config import Config


def truth_of(
    config: Config, dataset: SampleDataset, split: str, task: Task, inputs: Collection[str]
) -> list[Outcome] | None:
    """The joint table of these inputs, by their names, and of what the task predicts. None where the data set does not
    know it: for another column, for inputs that are in no table, and for a task that predicts only parts of items."""
    columns, needs = config.wiring.columns, task.needs
    if columns.get(task.target, task.target) != dataset.truth_column:
        return None
    outcomes = dataset.truth(split) if needs.generates or needs.refines or task.target in needs.columns else None
    if not outcomes or not {columns[name] for name in inputs} <= outcomes[0].inputs.keys():
        return None
    return [each._replace(inputs={name: each.inputs[columns[name]] for name in inputs}) for each in outcomes]


def check_columns(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError where an input or a task needs a column that the data set does not have."""
    wanted = {f"inputs.{name}": column for name, column in config.wiring.columns.items()}
    for name, needs in config.wiring.needs.items():
        wanted |= {f"tasks.{name}.target": column for column in needs.columns}
        wanted |= {f"tasks.{name}.metrics": column for column in needs.compared}
    for path, column in wanted.items():
        if column not in dataset.columns:
            mapping = f"{{{path.split('.')[1]}: {dataset.columns[0]}}}"
            hint = f" (data.columns says which is read, as {mapping})" if path.startswith("inputs") else ""
            if path.startswith("inputs") and config.inputs[path.split(".")[1]].target.Chopper.kind == "file":
                hint += "; several channels are one column, whose values are files (.npy, .csv) or lists of numbers"
            possible = ", ".join(dataset.columns) + hint
            raise DataError(f"{path}: dataset {dataset.name!r} has no column {column!r}; possible: {possible}")


def check_present(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError for an input whose column is empty in every sample of the training split."""
    samples = dataset.opened("train")
    for name, column in config.wiring.columns.items():
        if column in dataset.columns and next(iter(samples.column(column)), None) is None:
            others = dataset.others()
            raise DataError(
                f"inputs.{name}: none of the {len(samples)} training samples has anything in column {column!r}"
                + (f"; dataset.columns does not name {', '.join(others)}, which they have" if others else "")
            )
