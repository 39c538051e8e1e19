"""Code inside a run that kills itself: numbers its file operations and sends the signal at one of them."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from killing.plans import WRITING, Plan, Strike


class Watch:
    """Numbers this process's file operations in `folder/run` and `folder/cache` and its updates, and sends a signal at
    one of them.

    Functions of `os`, `open` and the writer of safetensors are wrapped, so that a signal can also be sent after an
    operation. An audit hook records operations that bypass the wrappers (`bypassed`).
    """

    def __init__(self, folder: Path, strike: Strike | None):
        self.folder, self.strike = folder.resolve(), strike
        self.roots = tuple(str(self.folder / name) for name in ("run", "cache"))
        self.operations: list[tuple[str, str]] = []
        self.bypassed: list[tuple[str, str]] = []
        self.lock, self.within = threading.Lock(), threading.local()

    def install(self) -> None:
        """Replaces the functions by the wrappers."""
        import safetensors.torch

        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "link", "symlink"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.fsync = self._wrapped("fsync", os.fsync)
        os.open = self._low_opener(os.open)
        builtins.open = io.open = self._opener(builtins.open)
        safetensors.torch.serialize_file = self._tensor_writer(safetensors.torch.serialize_file)
        sys.addaudithook(self._audit)

    def watched(self, path: Any, folder: int | None = None) -> str | None:
        """Returns a path relative to `self.folder`, or None if it is outside the watched folders. `folder` is the
        descriptor of the directory to which `path` is relative."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        absolute = os.fsdecode(path)
        if folder is not None and not os.path.isabs(absolute):
            absolute = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), absolute)
        absolute = os.path.abspath(absolute)
        return os.path.relpath(absolute, self.folder) if absolute.startswith(self.roots) else None

    def perform(self, kind: str, path: str, act: Callable[[], Any], tear: Callable[[], Any] | None = None) -> Any:
        """Runs one operation, numbers it and sends the signal if the strike has this number. `tear` writes half of
        it."""
        with self.lock:
            number = len(self.operations)
            self.operations.append((kind, path))
        strike = self.strike if self.strike and self.strike.number == number else None
        if strike and strike.when == "before":
            self._strike(kind, path)
        if strike and strike.when == "torn" and tear:
            self._unwatched(tear)
            self._strike(kind, path)
        try:
            return self._unwatched(act)
        finally:  # also if it raises, as mkdir does if the folder exists
            if strike and strike.when in ("after", "torn"):
                self._strike(kind, path)

    def _strike(self, kind: str, path: str) -> None:
        log = os.open(self.folder / "struck.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, f"{self.strike.when} {kind} {nameless(path)}\n".encode())
        os.close(log)
        os.kill(os.getpid(), self.strike.signal)

    def _unwatched(self, act: Callable[[], Any]) -> Any:
        before, self.within.wrapper = getattr(self.within, "wrapper", False), True
        try:
            return act()
        finally:
            self.within.wrapper = before

    def _wrapped(self, kind: str, original: Callable) -> Callable:
        def wrapper(path, *others, **named):
            watched = None if getattr(self.within, "wrapper", False) else self.watched(path, named.get("dir_fd"))
            if watched is None:
                return original(path, *others, **named)
            target = self.watched(others[0]) if kind in ("replace", "rename") else None
            return self.perform(kind, target or watched, lambda: original(path, *others, **named))

        return wrapper

    def _opener(self, original: Callable) -> Callable:
        def wrapper(file, mode="r", *others, **named):
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            watched = self.watched(file) if writes else None
            if watched is None:
                return original(file, mode, *others, **named)
            if isinstance(file, int):  # `os.open` was the operation
                return WatchedFile(original(file, mode, *others, **named), watched, self)
            opened = self.perform("open", watched, lambda: original(file, mode, *others, **named))
            return WatchedFile(opened, watched, self)

        return wrapper

    def _low_opener(self, original: Callable) -> Callable:
        def wrapper(path, flags, *others, **named):
            hidden = getattr(self.within, "wrapper", False) or not flags & WRITING
            watched = None if hidden else self.watched(path, named.get("dir_fd"))
            if watched is None:
                return original(path, flags, *others, **named)
            return self.perform("open", watched, lambda: original(path, flags, *others, **named))

        return wrapper

    def _tensor_writer(self, original: Callable) -> Callable:
        def wrapper(tensors, filename, **named):
            def tear():
                original(tensors, filename, **named)
                os.truncate(filename, os.path.getsize(filename) // 2)

            path = self.watched(filename) or "elsewhere"
            return self.perform("tensors", path, lambda: original(tensors, filename, **named), tear)

        return wrapper

    def _audit(self, event: str, arguments: tuple) -> None:
        changing = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
        if event == "open" and isinstance(arguments[0], str | bytes):
            changing = bool(arguments[2] & WRITING)
        if changing and not getattr(self.within, "wrapper", False) and not isinstance(arguments[0], int):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if path.startswith(self.roots):
                self.bypassed.append((event, path))


class WatchedFile:
    """A file opened for writing, whose writes are numbered as separate operations."""

    def __init__(self, file: Any, path: str, watch: Watch):
        self._file, self._path, self._watch, self._dirty = file, path, watch, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator:
        return iter(self._file)

    def write(self, content: Any) -> int:
        """Writes into the buffer; a torn write puts half of the content onto the disk."""

        def tear():
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        written = self._watch.perform("write", self._path, lambda: self._file.write(content), tear)
        self._dirty = True
        return written

    def flush(self) -> None:
        """Writes the buffer to the disk."""
        self._watch.perform("flush", self._path, self._file.flush)
        self._dirty = False

    def truncate(self, *size: int) -> int:
        """Truncates the file."""
        return self._watch.perform("truncate", self._path, lambda: self._file.truncate(*size))

    def close(self) -> None:
        """Closes the file; this is an operation if the buffer is not empty."""
        if self._dirty:
            self._dirty = False
            self._watch.perform("close", self._path, self._file.close)
        else:
            self._file.close()


def nameless(path: str) -> str:
    """Removes the part of a path that depends on the process: `run/.best.json.HOST.1a2b3c4d.77` is
    `run/.best.json.~`."""
    return re.sub(r"(/\.[^/]+)\.[^/]+\.[0-9a-f]{8}\.\d+(?=/|$)", r"\1.~", path)


def number_steps(watch: Watch) -> None:
    """Numbers the start of every update as an operation too, between the file operations."""
    from chopmix.training.loop import Learner

    original = Learner.update

    def update(learner, step, share):
        watch.perform("update", f"step {step}", lambda: None)
        return original(learner, step, share)

    Learner.update = update


def poison(batches: Sequence[int], weights: bool) -> None:
    """Sets weights to NaN before these batches or, if `weights`, after them."""
    import torch
    from chopmix.training.loop import Trainer

    original = Trainer.update

    @torch.no_grad()
    def set_nan(trainer) -> None:
        next(trainer.learner.model.parameters()).fill_(torch.nan)

    def update(trainer):
        poisoned = trainer.loader.batch_number(trainer.step) in batches
        if poisoned and not weights:
            set_nan(trainer)
        loss = original(trainer)
        if poisoned and weights:
            set_nan(trainer)
        return loss

    Trainer.update = update


def run_plan(plan: Plan, forked: bool = True) -> None:
    """Trains in this process while watching its operations, with its output in `said.txt`, and exits with its
    status."""
    if forked:
        os.setsid()
    os.chdir(plan.folder)
    output = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1), os.dup2(output, 2)
    os.environ["CHOPMIX_CACHE"] = os.path.join(plan.folder, "cache")
    for constant, value in plan.settings.items():
        module, _, name = constant.partition(":")
        setattr(importlib.import_module(module), name, value)
    for batches, weights in ((plan.poison, False), (plan.poison_weights, True)):
        if batches:
            poison(batches, weights)
    from chopmix.commands.cli import main

    watch = Watch(Path(plan.folder), plan.strike)
    watch.install()
    number_steps(watch)
    status = 1
    try:
        status = main(["train", *plan.arguments])
    finally:
        if plan.log:
            operations = [(kind, nameless(path)) for kind, path in watch.operations]
            Path(plan.folder, plan.log).write_text(json.dumps({"seen": operations, "unseen": watch.bypassed}))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt the end of the fork, not of the run
    sys.exit(status)
