"""The folder of a run: what is read from it, who may write into it, and a model written as a run without training."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import RootModel, StrictFloat, StrictInt

from ..files.locking import lock
from ..files.printing import printable
from ..files.reading import DataError
from ..files.records import Record, as_record, read_record
from ..files.trust import NOTHING, Trust
from ..files.writing import is_alive, make_folder, not_written, write_json
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..training import checkpoints as checkpoint
from ..training.checkpoints import State
from .build import save_learned
from .settings.config import Config, load_run_config, write_config


class RunError(ValueError):
    """A run's folder, or a request to a run, that cannot be used; the message says why and what is possible."""


MOST_NAMES = 50
"""How many names one sentence lists."""


def listed(names: Sequence[str]) -> str:
    """Names with commas between, at most MOST_NAMES of them, then ` and 12 more`; `nothing` for none."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else "nothing"


def read_config(folder: Path, trust: Trust = NOTHING) -> Config:
    """A run's `config.yaml`, with all defaults. It may name code of chopmix and of the modules that `trust` allows.
    Raises RunError if the folder is not a run, ConfigError if the file is damaged, has another format, or names other
    code."""
    if not os.path.exists(folder / "config.yaml"):
        raise RunError(f"{folder} is not a run: it has no config.yaml. Train it with `{training_of(folder)}`")
    return load_run_config(folder, trust)


def training_of(folder: Path) -> str:
    """The command that trains a run: `chopmix train configs/a/b.yaml` for `runs/a/b`, if there is such a file."""
    *above, name = folder.parts or ("",)
    files = [Path("configs", *above[at + 1 :], f"{name}.yaml") for at, each in enumerate(above) if each == "runs"]
    return f"chopmix train {next(filter(os.path.isfile, files), 'CONFIG')}"


def chosen_step(folder: Path, which: str, say: Callable[[str], None] = lambda text: None) -> int:
    """The step of the checkpoint that is `which`, `best` or `last`; where there is none, of the last, else of the
    newest, and `say` gets a sentence. Raises RunError where the run has no checkpoint."""
    found = checkpoint.steps(folder)
    if not found:
        raise RunError(
            f"{folder} has no checkpoint yet: its training failed, or did not reach the first one. Train it with "
            f"`{training_of(folder)}`"
        )
    wanted, last = checkpoint.read_step(folder, which), checkpoint.read_step(folder, "last")
    if wanted in found:
        return wanted
    step = last if last in found else found[-1]
    say(f"{folder} has no checkpoint that is its {which}; that of step {step:,} is read")
    return step


def valid_step(folder: Path, which: str, say: Callable[[str], None]) -> int:
    """As `chosen_step`, but where that checkpoint is damaged, the step of the newest whole one, and `say` gets a
    sentence. Raises CheckpointError where none is whole."""
    step = chosen_step(folder, which, say)
    try:
        checkpoint.read_state(folder, step)
        return step
    except checkpoint.CheckpointError as error:
        for other in reversed(checkpoint.steps(folder)):
            with suppress(checkpoint.CheckpointError):
                checkpoint.read_state(folder, other)
                say(f"{error}; the checkpoint of step {other} is used instead")
                return other
        raise


def say_aside(text: str) -> None:
    """Print a line on standard error, beside the results on standard output."""
    print(printable(text), file=sys.stderr)


def check_assets(config: Config, assets: Path) -> None:
    """Raises RunError where `assets` lacks the folder of an input or a task that learned something from the data."""
    kept = {name: part.target.Chopper for name, part in config.inputs.items() if config.wiring.owners[name] == name}
    learned = {name: kind for name, kind in kept.items() if kind.learns and kind.load is not Chopper.load}
    learned |= {f"task-{name}": part.target for name, part in config.tasks.items() if part.target.Learned}
    for name in learned:
        if not os.path.exists(assets / name):
            raise RunError(
                f"{assets}/{name} is missing: what this run learned of its data stands there; copy whole runs"
            )


def fingerprints(choppers: Mapping[str, Chopper]) -> dict[str, str]:
    """The fingerprint of every input's vocabulary, or of the run that it took in, by input."""
    return {name: known for name, chopper in choppers.items() if (known := chopper.fingerprint) is not None}


def load_weights(
    model: Model, folder: Path, step: int, choppers: Mapping[str, Chopper], averaged: bool = True
) -> State:
    """Load a checkpoint's weights into a model, after checking its files and vocabularies; gives its state. `averaged`:
    the averaged weights, where it has some.

    Raises CheckpointError for damage and for tensors of other names or shapes than the model's, RunError where a
    vocabulary, or a run that was taken in, is not the one that the weights were trained with.
    """
    state = checkpoint.read_state(folder, step)
    for name, known in state.vocabularies.items():
        if fingerprints(choppers).get(name) != known:
            raise RunError(
                f"{folder}/assets/{name} (a vocabulary, or a run that was taken in) changed since the checkpoint of "
                f"step {step} was written; put the old one back, or start again with another out="
            )
    weights = checkpoint.read_part(folder, step, "model")
    if averaged:
        weights |= checkpoint.read_part(folder, step, "ema")
    own, there = ({(name, value.shape) for name, value in each.items()} for each in (model.state_dict(), weights))
    if wrong := sorted({name for name, _ in own ^ there}):
        where = checkpoint.folder_of(folder, step)
        raise checkpoint.CheckpointError(f"{where}: its tensors are not those of this configuration: {listed(wrong)}")
    model.load_state_dict(weights)
    return state


Summary = RootModel[dict[str, StrictInt | StrictFloat]]
"""The content of `summary.json`."""


def check_is_free(folder: Path) -> None:
    """Raises RunError where the name is taken by a file, or by a folder that is neither empty nor a run; checked before
    the lock, so that nothing is written there."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise RunError(f"{folder} is a file; out= must name a folder")
    names = [file.name for file in folder.iterdir()] if os.path.exists(folder) else []
    if "config.yaml" not in names and any(not name.startswith(".") for name in names):
        raise RunError(f"{folder} is not empty and not a run; choose another out=")


def claim(config: Config, folder: Path) -> None:
    """Write `config.yaml` into the folder, whose lock this process holds, after checking that it is free or a run of
    this configuration. Raises RunError listing what differs (see `strict`), and for a run past `training.steps`."""
    check_is_free(folder)
    step, steps = max(checkpoint.steps(folder), default=0), config.training.steps
    if steps is not None and step > steps:
        raise RunError(f"{folder} has come to step {step:,}; training.steps={steps} is less than that")
    if os.path.exists(folder / "config.yaml") and not checkpoint.steps(folder):
        for name in ("assets", "checkpoints"):  # without a checkpoint there is nothing to go on from
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in ("choices.json", "budget.json"):
            (folder / name).unlink(missing_ok=True)
    elif os.path.exists(folder / "config.yaml"):
        differences = list(compare(strict(read_config(folder, config.trust).tree), strict(config.tree)))
        if differences:
            shown = "\n".join(f"  {path}: {old!r} there, {new!r} here" for path, old, new in differences)
            raise RunError(f"{folder} is a run of another configuration; choose another out=\n{shown}")
    checkpoint.sweep(folder)
    write_config(folder, config)


def check_links(folder: Path) -> None:
    """Raises RunError if a link in a run's folder leads out of it: what is written there would be written elsewhere."""
    root = os.path.realpath(folder)
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(place, name)
            if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root):
                raise RunError(f"{path} is a link that leads out of the run's folder; replace it by a copy")


def summary_of(folder: Path, steps: int) -> dict[str, float] | None:
    """The `summary.json` of a run that is finished at `steps`, None of one that is not. Raises CheckpointError for a
    damaged file.

        {"step": 900, "seconds": 78.2, "val/loss": 0.1}
    """
    file = folder / "summary.json"
    if checkpoint.read_step(folder, "last") != steps or not os.path.exists(file):
        return None
    try:
        found = read_record(file, Summary).root
    except DataError as error:
        raise checkpoint.CheckpointError(f"{error}; delete it, and the same command makes it again") from None
    return found if found.get("step") == steps else None


def strict(tree: dict) -> dict:
    """The part of a configuration that may not change when a run resumes: all but the sections `logging`, `evaluation`,
    `checkpoints`, `out` and the keys in `free`."""
    kept = {key: value for key, value in tree.items() if key not in ("logging", "evaluation", "checkpoints", "out")}
    free = ("steps", "minutes", "device", "rows_per_micro_batch", "bad_share")
    return kept | {part: {k: v for k, v in tree[part].items() if k not in free} for part in ("training", "data")}


def compare(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, old, new) for every leaf in which two trees differ: `("training.seed", 0, 1)`."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from compare(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif old != new:
        yield path, old, new


class Holder(Record):
    """The content of `.lock`, for the message to a second start.

    {"pid": 4242, "host": "box", "since": "2026-01-31 12:00:00"}
    """

    pid: int
    host: str
    since: str


class LockedError(RunError):
    """A run's folder is in use by another process."""


@contextmanager
def run_lock(folder: Path) -> Iterator[Callable[[], None]]:
    """A context in which this process alone has the folder; gives `check_lock` of it. Entering raises LockedError where
    another process has it, naming that process and since when, OSError where the disk has no locks or cannot be written
    to."""
    file = folder / ".lock"
    with opened_lock(file) as handle:  # closing it ends the lock; the file stays: who waits must wait for the same one
        try:
            lock(handle)
        except BlockingIOError:
            in_use = (
                f"in use{holder_of(handle, file, seconds=1.0)}; wait until it is done, stop it, or choose another out="
            )
            raise LockedError(f"{folder} is {in_use}") from None
        except OSError as error:  # such as a disk without locks
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
    """Raises OSError where the lock file is not the open one any more: the run's folder was deleted, moved or replaced,
    or the file alone was, and another process may train there."""
    with suppress(OSError):  # it is not there
        if os.path.samestat(os.lstat(file), os.fstat(handle.fileno())):
            return
    what = "it was deleted, moved or replaced, or its file .lock was"
    if file.is_file():
        with open(file) as there:
            what = f"its file .lock is another one now{holder_of(there, file)}"
    again = "The same command goes on from the last checkpoint, if the folder is back in its place"
    raise OSError(f"{file.parent} is not this run's folder any more: {what}. Nothing more is written. {again}")


def opened_lock(file: Path) -> Any:
    """The lock file, open, made where there is none; a link in its place is not followed. Raises OSError naming it,
    LockedError where it is no regular file."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    except (OSError, ValueError) as error:
        raise not_written(file, error) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise LockedError(f"{file} is no regular file: delete it, or choose another out=")
    return open(number, "a+")


def holder_of(handle: Any, file: Path, seconds: float = 0.0) -> str:
    """Who holds the lock, for the message; empty where the file does not say. A process that has just taken the lock
    may not have written its name yet: for so many `seconds` the file is read again."""
    told, end = "", time.monotonic() + seconds
    while True:
        handle.seek(0)
        with suppress(DataError, OSError, UnicodeDecodeError):
            holder = as_record(handle.read(), Holder, str(file))
            told = f": process {holder.pid} on {holder.host} works on it since {holder.since}"
            if holder.host != socket.gethostname() or is_alive(holder.pid):
                return told
        if time.monotonic() >= end:
            return told
        time.sleep(0.02)


def write_model_run(
    folder: Path, config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], model: Model,
    told: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a run with one checkpoint, at step 0.

        config.yaml
        assets/text/encoding.json, assets/task-label/classes.json, ...      what choppers and tasks learned
        checkpoints/step-00000000/{model.safetensors,state.json}
        best.json, last.json                                                both {"step": 0}

    `told`: further entries of `state.json`, such as `missing`. Raises OSError where it cannot be written."""
    make_folder(folder)
    for name, chopper in choppers.items():
        if config.wiring.owners[name] == name:
            chopper.save(folder / "assets" / name)
    for name, task in tasks.items():
        save_learned(task, folder / "assets" / f"task-{name}")
    write_config(folder, config)
    state = {"seconds": 0.0, "vocabularies": fingerprints(choppers), "data": {}, **told}
    checkpoint.save(folder, 0, {"model": model.state_dict()}, state)
    write_json(folder / "best.json", {"step": 0})
