"""Changes of settings of a run that has already been trained for some steps (`--change`).

The file `changes.json` in the folder of a run lists them. A change takes effect at the step of the checkpoint from
which the run was resumed. Training reads on where it was: no sample is skipped or repeated when the number of samples
per step changes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..files.errors import RunError
from ..files.reading import DataError
from ..files.records import Record, read_record
from ..files.writing import write_json
from ..training import checkpoints as checkpoint
from ..training.checkpoints import CheckpointError
from .run_folder import Differences, summary_of

FILE = "changes.json"
FREE = ("steps", "minutes", "epochs", "stop", "workers")
CHANGEABLE = ("learning_rate", "schedule", "precision")
"""The keys of `training` that can be changed with `--change`. The keys FREE can be changed by any command."""


class Setting(Record):
    """The old and the new value of a setting."""

    old: Any
    new: Any


class Change(Record):
    """A change of settings at a step."""

    step: int
    settings: dict[str, Setting]
    """The settings by key, such as `training.samples_per_step`."""

    def lines(self) -> list[str]:
        """Returns one line per setting: `changed at step 100: training.samples_per_step 16 -> 32`."""
        return [f"changed at step {self.step:,}: {key} {each.old} -> {each.new}" for key, each in self.settings.items()]


class Changes(Record):
    """The content of `changes.json`, in the order of the steps."""

    changes: tuple[Change, ...] = ()


def read_changes(folder: Path) -> tuple[Change, ...]:
    """Returns the changes of a run. Raises CheckpointError if the file is damaged."""
    if not os.path.isfile(folder / FILE):
        return ()
    try:
        return read_record(folder / FILE, Changes).changes
    except DataError as error:
        raise CheckpointError(f"{error}; without it, the run cannot be continued") from None


def is_training_key(change: str) -> bool:
    """Returns whether the text KEY=VALUE names a key of `training` that can be changed, without its section."""
    return change.partition("=")[0].partition(".")[0] in {*CHANGEABLE, *FREE} - {"workers"}


def check_keys(keys: Iterable[str], folder: Path) -> None:
    """Raises RunError if one of the keys of `--change` cannot be changed in a run."""
    possible = [f"training.{name}" for name in (*CHANGEABLE, *FREE) if name != "workers"] + ["data.workers"]
    for key in keys:
        if not any(key == name or key.startswith(f"{name}.") for name in possible):
            raise RunError(
                f"--change {key}: possible in a run that is trained: {', '.join(possible)}. For other changes start a "
                f"new run with these weights: from={folder} out=OTHER"
            )


def check_unfinished(folder: Path, requested: Collection[str]) -> None:
    """Raises RunError if a run is finished, and the settings `requested` with `--change` do not make it longer."""
    last = checkpoint.read_step(folder, "last") if requested and folder.is_dir() else None
    longer = [f"training.{name}" for name in ("steps", "minutes", "epochs", "stop")]
    if last is None or any(key == name or key.startswith(f"{name}.") for key in requested for name in longer):
        return
    if summary_of(folder, last) is not None:
        raise RunError(
            f"{folder} is finished at step {last:,}, so --change has no effect; train longer at the same time: "
            "--change training.steps=N"
        )


def note_change(folder: Path, differences: Differences, others: Differences, requested: Collection[str]) -> bool:
    """Adds differences between the run's configuration and the new one to `changes.json`: `differences`, if all of them
    were requested with `--change`, and those of the `others` that were. Returns whether all of `differences` were
    requested. The change takes effect at the newest undamaged checkpoint. Raises RunError if the run is finished and
    not made longer."""

    def is_requested(key: str) -> bool:
        return any(key == name or key.startswith(f"{name}.") for name in requested)

    if not all(is_requested(key) for key, _, _ in differences):
        return False
    differences = [*differences, *(each for each in others if is_requested(each[0]))]
    if not differences:
        return True
    check_unfinished(folder, requested)
    step = checkpoint.newest_valid(folder, lambda line: None)
    if step is None:
        raise RunError(f"{folder} has no checkpoint at which settings could be changed")
    settings = {key: Setting(old=old, new=new) for key, old, new in differences}
    known = moved_back(folder)
    earlier = [change for change in known if change.step < step]
    same = [change for change in known if change.step == step]
    for change in same:  # several changes at one step are one
        settings = merged(change.settings, settings)
    changes = Changes(changes=(*earlier, Change(step=step, settings=settings)))
    write_json(folder / FILE, changes.model_dump(mode="json"))
    for name in ("choices.json",) if "training.precision" in settings else ():
        (folder / name).unlink(missing_ok=True)
    return True


def merged(first: dict[str, Setting], second: dict[str, Setting]) -> dict[str, Setting]:
    """Returns two changes at the same step as one: from the old value of the first to the new value of the second."""
    old = {key: first[key].old if key in first else each.old for key, each in second.items()}
    return first | {key: Setting(old=old[key], new=each.new) for key, each in second.items()}


def moved_back(folder: Path) -> tuple[Change, ...]:
    """Returns the changes of a run that is about to be resumed. If a checkpoint was lost, a change after the newest
    undamaged checkpoint takes effect at this checkpoint; `changes.json` is then written again."""
    changes, step = read_changes(folder), checkpoint.newest_valid(folder, lambda line: None)
    if not any(change.step > (step or 0) for change in changes):
        return changes
    kept = moved(changes, step)
    write_json(folder / FILE, Changes(changes=kept).model_dump(mode="json"))
    return kept


def moved(changes: Sequence[Change], step: int | None) -> tuple[Change, ...]:
    """Returns the changes until a step, and a change at this step that has the settings of all later changes."""
    kept = [change for change in changes if step is not None and change.step <= step]
    later = [change for change in changes if change not in kept]
    settings: dict[str, Setting] = {}
    for change in later:
        settings = merged(settings, change.settings)
    if step is not None:
        kept.append(Change(step=step, settings=settings))
    return tuple(kept)


def check_batch_size(folder: Path, changes: Sequence[Change]) -> None:
    """Raises RunError if a run of an earlier version has changed its number of samples per step: where it is in the
    epoch would be unknown."""
    key = "training.samples_per_step"
    for change in changes:
        if key in change.settings:
            raise RunError(
                f"{folder} changed {key} at step {change.step:,}, which this version cannot continue; start a new run "
                f"with its weights: from={folder} out=OTHER"
            )
