"""A run's folder before training: whether it is free, of the same configuration, or finished; and its lock, by which
one process at a time trains there: a lock of the kernel, released however the process ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import RootModel, StrictFloat, StrictInt

from ...tokenizers.files.locking import lock
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record, as_record, read_record
from ...tokenizers.files.writing import is_alive, not_written
from ...training.checkpoints import files as checkpoint
from ..settings.config import Config, write_config
from .reading import RunError, read_config

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
