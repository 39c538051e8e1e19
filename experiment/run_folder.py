"""The folder of a run: reading, locking and checking the folder, and writing a model as a run without training."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import RootModel, StrictFloat, StrictInt

from ..files.errors import RunError
from ..files.reading import DataError
from ..files.records import Record, as_record, read_record
from ..files.trust import NOTHING, Trust
from ..files.writing import is_alive, lock, make_folder, not_written, open_for_append, write_json
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..training import checkpoints as checkpoint
from ..training.early_stop import EarlyStop, still_stops
from .build import save_learned
from .settings.config import Config, load_run_config, write_config


def read_config(folder: Path, trust: Trust = NOTHING) -> Config:
    """Returns the configuration in a run's `config.yaml`, with all defaults. The configuration may name code of chopmix
    and of the modules that `trust` allows. Raises RunError if the folder has no `config.yaml`; ConfigError if this file
    is damaged, has another format number, or names other code."""
    if not os.path.exists(folder / "config.yaml"):
        raise RunError(f"{folder} is not a run: it has no config.yaml. Train it with `{training_of(folder)}`")
    return load_run_config(folder, trust)


def training_of(folder: Path) -> str:
    """Returns the command that trains the run in `folder`: `chopmix train configs/a/b.yaml` for `runs/a/b` if this file
    exists, else `chopmix train CONFIG`."""
    *parents, name = folder.parts or ("",)
    files = [
        Path("configs", *parents[index + 1 :], f"{name}.yaml")
        for index, folder_name in enumerate(parents)
        if folder_name == "runs"
    ]
    return f"chopmix train {next(filter(os.path.isfile, files), 'CONFIG')}"


def chosen_step(folder: Path, which: str, say: Callable[[str], None] = lambda text: None) -> int:
    """Returns the step of the checkpoint `which`, `best` or `last`. If this checkpoint is missing, returns the step of
    the last checkpoint, or, if that is missing too, of the newest checkpoint, and calls `say` with a message. Raises
    RunError if the run has no checkpoint."""
    steps = checkpoint.steps(folder)
    if not steps:
        reason = "its training failed, or ended before the first checkpoint"
        raise RunError(f"{folder} has no checkpoint: {reason}. Train it with `{training_of(folder)}`")
    wanted, last = checkpoint.read_step(folder, which), checkpoint.read_step(folder, "last")
    if wanted in steps:
        return wanted
    step = last if last in steps else steps[-1]
    say(f"{folder} has no {which} checkpoint; the checkpoint of step {step:,} is used")
    return step


def valid_step(folder: Path, which: str, say: Callable[[str], None]) -> int:
    """Returns the step of the checkpoint that `chosen_step` selects. If this checkpoint is damaged, returns the step of
    the newest checkpoint that is not damaged, and calls `say` with a message. Raises CheckpointError if all checkpoints
    are damaged, RunError if the run has no checkpoint."""
    step = chosen_step(folder, which, say)
    try:
        checkpoint.read_state(folder, step)
        return step
    except checkpoint.CheckpointError as error:
        return other_step(folder, error, say)


def other_step(folder: Path, error: checkpoint.CheckpointError, say: Callable[[str], None]) -> int:
    """Returns the step of the newest undamaged checkpoint. Raises the error if there is none."""
    for other in reversed(checkpoint.steps(folder)):
        with suppress(checkpoint.CheckpointError):
            checkpoint.read_state(folder, other)
            say(f"{error}; the checkpoint of step {other} is used instead")
            return other
    raise error


def check_assets(config: Config, assets: Path) -> None:
    """Raises RunError if `assets` has no folder for an input or a task of a kind that learns something from the
    data."""
    choppers = {name: part.target.Chopper for name, part in config.inputs.items() if config.wiring.owners[name] == name}
    learned = {name: kind for name, kind in choppers.items() if kind.learns and kind.load is not Chopper.load}
    learned |= {f"task-{name}": part.target for name, part in config.tasks.items() if part.target.Learned}
    for name in learned:
        if not os.path.exists(assets / name):
            raise RunError(
                f"{assets}/{name} is missing. It holds what this run learned from its data; copy complete run folders"
            )


def fingerprints(choppers: Mapping[str, Chopper]) -> dict[str, str]:
    """Returns a fingerprint by input: of the vocabulary of the input, or of the run that the input uses as a part.
    Inputs without a fingerprint are omitted."""
    return {name: fingerprint for name, chopper in choppers.items() if (fingerprint := chopper.fingerprint) is not None}


Number = StrictInt | StrictFloat
Summary = RootModel[dict[str, Number | dict[str, Number]]]
"""The content of `summary.json`: `step` and `seconds` of the training, the metrics of the checkpoint that `predict` and
`evaluate` load, its step as `best_step`, and as `last` the metrics of the last step."""


def check_is_free(folder: Path) -> None:
    """Raises RunError if the path is a file, or a folder that contains files but no `config.yaml` (files whose names
    begin with a dot are ignored). This check precedes the lock, so nothing is written into a folder of other files."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise RunError(f"{folder} is a file; out= must name a folder")
    names = [file.name for file in folder.iterdir()] if os.path.exists(folder) else []
    if "config.yaml" not in names and any(not name.startswith(".") for name in names):
        raise RunError(f"{folder} is not empty and not a run; choose another out=")


Differences = Sequence[tuple[str, Any, Any]]
"""The differences of two configurations: (key, old value, new value)."""


def prepare_run(
    config: Config, folder: Path, change: Callable[[Path, Differences, Differences], bool] = lambda *arguments: False
) -> None:
    """Check that this process can train in the folder, which it has locked, and write `config.yaml`. If the folder is a
    run without a checkpoint, what the run has fitted is deleted. `change` is called with the folder, the differences
    from the configuration of the run that need the user's consent (see `strict`), and all other differences; it returns
    whether the user requested them. Raises RunError with the differences if not, and if the run is past
    `training.steps`."""
    check_is_free(folder)
    step, steps = max(checkpoint.steps(folder), default=0), config.training.steps
    if steps is not None and step > steps:
        raise RunError(f"{folder} is already at step {step:,}, which is more than training.steps={steps}")
    if os.path.exists(folder / "config.yaml"):
        if checkpoint.steps(folder):
            compare_with_run(config, folder, change)
        else:
            forget_data(folder)
    checkpoint.sweep(folder)
    write_config(folder, config)


def forget_data(folder: Path) -> None:
    """Delete what a run without a checkpoint has fitted: training starts again."""
    for name in ("assets", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("choices.json", "budget.json", "changes.json", checkpoint.BASE):
        (folder / name).unlink(missing_ok=True)


def compare_with_run(config: Config, folder: Path, change: Callable[[Path, Differences, Differences], bool]) -> None:
    """Raises RunError with the differences between the configuration of a run and this one that the user has not
    requested (see `prepare_run`)."""
    tree = read_config(folder, config.trust).tree
    differences = list(compare(strict(tree), strict(config.tree)))
    others = [each for each in compare(tree, config.tree) if each not in differences]
    if not change(folder, differences, others) and differences:
        lines = "\n".join(f"  {path}: {old!r} in the run, {new!r} now" for path, old, new in differences)
        raise RunError(
            f"{folder} is a run of another configuration; choose another out=, or change a run with --change "
            f"KEY=VALUE\n{lines}"
        )


def check_links(folder: Path) -> None:
    """Raises RunError if a link in a run's folder leads out of this folder, since files would be written to its
    target."""
    root = os.path.realpath(folder)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(parent, name)
            if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} is a link that leads out of the run's folder; replace it by a copy")


def summary_of(
    folder: Path, steps: int, stop: EarlyStop | None = None, best: str | None = None
) -> dict[str, Any] | None:
    """Returns the content of `summary.json` if the run is finished, at the step `steps` or by early stopping with the
    setting `stop` (see `still_stops`); otherwise None. Raises CheckpointError if a file is damaged.

        {"step": 900, "seconds": 78.2, "val/loss": 0.1, "last": {"val/loss": 0.12}, "best_step": 700}
    """
    file, last = folder / "summary.json", checkpoint.read_step(folder, "last")
    if last is None or not os.path.exists(file):
        return None
    return stored_summary(folder, last, steps, stop, best)


def stored_summary(
    folder: Path, last: int, steps: int, stop: EarlyStop | None, best: str | None
) -> dict[str, Any] | None:
    """Returns the content of `summary.json` if it is that of the `last` step, and if the run ends there."""
    file = folder / "summary.json"
    if last != steps:
        state = checkpoint.read_state(folder, last)
        if not (state.stopped_early and still_stops(state.patience, stop, best)):
            return None
    try:
        summary = read_record(file, Summary).root
    except DataError as error:
        raise checkpoint.CheckpointError(f"{error}; delete it and run the same command again to write it") from None
    return summary if summary.get("step") == last else None


def strict(tree: dict) -> dict:
    """Returns the part of a configuration that must not change when a run resumes: all sections except `logging`,
    `evaluation`, `checkpoints` and `out`, without the keys in `free` of `training` and `data`."""
    sections = {key: value for key, value in tree.items() if key not in ("logging", "evaluation", "checkpoints", "out")}
    free = ("steps", "minutes", "epochs", "stop", "device", "rows_per_micro_batch", "bad_share", "workers")
    return sections | {part: {k: v for k, v in tree[part].items() if k not in free} for part in ("training", "data")}


def compare(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields (path, old, new) for every value that differs between two trees: `("training.seed", 0, 1)`. A missing
    value is None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from compare(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


class Holder(Record):
    """The content of `.lock`: the process that holds the lock. A second process shows it in its error message.

    {"pid": 4242, "host": "box", "since": "2026-01-31 12:00:00"}
    """

    pid: int
    host: str
    since: str


class LockedError(RunError):
    """Another process uses the run's folder."""


@contextmanager
def run_lock(folder: Path) -> Iterator[Callable[[], None]]:
    """Returns a context in which this process has the exclusive lock of a run's folder. The value of the context is a
    function without arguments that calls `check_lock` for this lock. Raises LockedError if another process holds the
    lock (the message names the process and the time), DataError if `.lock` is a link, OSError if the file system has no
    locks or is not writable."""
    file = folder / ".lock"
    # Closing the file releases the lock. The file is not deleted, so all processes lock the same file.
    make_folder(folder)
    with open_for_append(file) as handle:
        try:
            lock(handle)
        except BlockingIOError:
            advice = "wait until it is done, stop it, or choose another out="
            raise LockedError(f"{folder} is in use{holder_of(handle, file, seconds=1.0)}; {advice}") from None
        except OSError as error:  # for example a file system without locks
            raise OSError(error.errno, f"{file} cannot be locked: {error.strerror}") from error
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            handle.truncate(0)
            handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            handle.flush()
        except OSError as error:
            raise not_written(file, error) from error
        yield partial(check_lock, handle, file)


def check_lock(handle: Any, file: Path) -> None:
    """Raises OSError if the lock file at the path is not the file that this process has opened. Then the run's folder,
    or only the lock file, was deleted, moved or replaced, and another process may train in the folder."""
    with suppress(OSError):  # the file does not exist
        if os.path.samestat(os.lstat(file), os.fstat(handle.fileno())):
            return
    raise replaced_folder(file)


def replaced_folder(file: Path) -> OSError:
    """Returns the error that a folder is no longer that of the run, or that its lock `file` is another one."""
    reason = "it was deleted, moved or replaced, or its file .lock was"
    if file.is_file():
        with open(file) as other_lock:
            reason = f"its file .lock was replaced{holder_of(other_lock, file)}"
    advice = "Put the folder back and run the same command: it goes on from the last checkpoint"
    return OSError(f"{file.parent} is no longer this run's folder: {reason}. Nothing more is written. {advice}")


def holder_of(handle: Any, file: Path, seconds: float = 0.0) -> str:
    """Returns text about the process that holds the lock, for a message; empty if the file does not name a process. A
    process that has just taken the lock may not have written the file yet. Therefore the file is read repeatedly for at
    most `seconds`."""
    description, end = "", time.monotonic() + seconds
    while True:
        handle.seek(0)
        with suppress(DataError, OSError, UnicodeDecodeError):
            holder = as_record(handle.read(), Holder, str(file))
            description = f": process {holder.pid} on {holder.host} works on it since {holder.since}"
            if holder.host != socket.gethostname() or is_alive(holder.pid):
                return description
        if time.monotonic() >= end:
            return description
        time.sleep(0.02)


def write_model_run(
    folder: Path, config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], model: Model,
    extra_state: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a run with one checkpoint, at step 0.

        config.yaml
        assets/text/encoding.json, assets/task-label/classes.json, ...      what choppers and tasks learned
        checkpoints/step-00000000/{model.safetensors,state.json}
        best.json, last.json                                                both {"step": 0}

    `extra_state` contains further entries of `state.json`, such as `missing`. Raises OSError if a file cannot be
    written."""
    make_folder(folder)
    for name, chopper in choppers.items():
        if config.wiring.owners[name] == name:
            chopper.save(folder / "assets" / name)
    for name, task in tasks.items():
        save_learned(task, folder / "assets" / f"task-{name}")
    write_config(folder, config)
    state = {"seconds": 0.0, "vocabularies": fingerprints(choppers), "data": {}, **extra_state}
    checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
    write_json(folder / "best.json", {"step": 0})
