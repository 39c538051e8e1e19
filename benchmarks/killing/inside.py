"""Inside a run that is to be killed: its file operations, numbered, and the strike at one of them."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from killing.plans import WRITING, Plan, Strike


class Watch:
    """Numbers this process's file operations below `folder/run` and `folder/cache`, and updates, and strikes at
    one of them.

    Functions of `os`, `open` and safetensors' writer are wrapped, so that there is a moment after each as well;
    an audit hook tells of whatever escapes them (`unseen`).
    """

    def __init__(self, folder: Path, strike: Strike | None):
        self.folder, self.strike = folder.resolve(), strike
        self.roots = tuple(str(self.folder / name) for name in ("run", "cache"))
        self.seen: list[tuple[str, str]] = []
        self.unseen: list[tuple[str, str]] = []
        self.lock, self.within = threading.Lock(), threading.local()

    def install(self) -> None:
        """Put the wrappers where everybody finds them."""
        import safetensors.torch

        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "link", "symlink"):
            setattr(os, name, self._wrapped(name, getattr(os, name)))
        os.fsync = self._wrapped("fsync", os.fsync)
        os.open = self._low_opener(os.open)
        builtins.open = io.open = self._opener(builtins.open)
        safetensors.torch.serialize_file = self._tensor_writer(safetensors.torch.serialize_file)
        sys.addaudithook(self._audit)

    def place(self, path: Any, folder: int | None = None) -> str | None:
        """A path below the watched folders, from `folder` on; None for any other."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        found = os.fsdecode(path)
        if folder is not None and not os.path.isabs(found):
            found = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), found)
        found = os.path.abspath(found)
        return os.path.relpath(found, self.folder) if found.startswith(self.roots) else None

    def meet(self, kind: str, place: str, act: Callable[[], Any], tear: Callable[[], Any] | None = None) -> Any:
        """One operation: it gets a number, and is struck where that is wanted."""
        with self.lock:
            number = len(self.seen)
            self.seen.append((kind, place))
        here = self.strike if self.strike and self.strike.number == number else None
        if here and here.when == "before":
            self._strike(kind, place)
        if here and here.when == "torn" and tear:
            self._quietly(tear)
            self._strike(kind, place)
        try:
            return self._quietly(act)
        finally:  # also where it raises, as making a folder that is there does
            if here and here.when in ("after", "torn"):
                self._strike(kind, place)

    def _strike(self, kind: str, place: str) -> None:
        told = os.open(self.folder / "struck.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(told, f"{self.strike.when} {kind} {nameless(place)}\n".encode())
        os.close(told)
        os.kill(os.getpid(), self.strike.signal)

    def _quietly(self, act: Callable[[], Any]) -> Any:
        before, self.within.wrapper = getattr(self.within, "wrapper", False), True
        try:
            return act()
        finally:
            self.within.wrapper = before

    def _wrapped(self, kind: str, original: Callable) -> Callable:
        def wrapper(path, *others, **named):
            place = None if getattr(self.within, "wrapper", False) else self.place(path, named.get("dir_fd"))
            if place is None:
                return original(path, *others, **named)
            shown = self.place(others[0]) if kind in ("replace", "rename") else None
            return self.meet(kind, shown or place, lambda: original(path, *others, **named))

        return wrapper

    def _opener(self, original: Callable) -> Callable:
        def wrapper(file, mode="r", *others, **named):
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            place = self.place(file) if writes else None
            if place is None:
                return original(file, mode, *others, **named)
            if isinstance(file, int):  # opened before: that was the operation
                return Pen(original(file, mode, *others, **named), place, self)
            return Pen(self.meet("open", place, lambda: original(file, mode, *others, **named)), place, self)

        return wrapper

    def _low_opener(self, original: Callable) -> Callable:
        def wrapper(path, flags, *others, **named):
            hidden = getattr(self.within, "wrapper", False) or not flags & WRITING
            place = None if hidden else self.place(path, named.get("dir_fd"))
            if place is None:
                return original(path, flags, *others, **named)
            return self.meet("open", place, lambda: original(path, flags, *others, **named))

        return wrapper

    def _tensor_writer(self, original: Callable) -> Callable:
        def wrapper(tensors, filename, **named):
            def tear():
                original(tensors, filename, **named)
                os.truncate(filename, os.path.getsize(filename) // 2)

            place = self.place(filename)
            return self.meet("tensors", place or "elsewhere", lambda: original(tensors, filename, **named), tear)

        return wrapper

    def _audit(self, event: str, arguments: tuple) -> None:
        changing = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
        if event == "open" and isinstance(arguments[0], str | bytes):
            changing = bool(arguments[2] & WRITING)
        if changing and not getattr(self.within, "wrapper", False) and not isinstance(arguments[0], int):
            place = os.path.abspath(os.fsdecode(arguments[0]))
            if place.startswith(self.roots):
                self.unseen.append((event, place))


class Pen:
    """A file open for writing, whose writes are operations of their own."""

    def __init__(self, file: Any, place: str, watch: Watch):
        self._file, self._place, self._watch, self._wet = file, place, watch, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Pen:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator:
        return iter(self._file)

    def write(self, content: Any) -> int:
        """Into the buffer; torn: half of it onto the disk."""

        def tear():
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        written = self._watch.meet("write", self._place, lambda: self._file.write(content), tear)
        self._wet = True
        return written

    def flush(self) -> None:
        """The buffer onto the disk."""
        self._watch.meet("flush", self._place, self._file.flush)
        self._wet = False

    def truncate(self, *size: int) -> int:
        """Cut the file."""
        return self._watch.meet("truncate", self._place, lambda: self._file.truncate(*size))

    def close(self) -> None:
        """An operation where something is still in the buffer."""
        if self._wet:
            self._wet = False
            self._watch.meet("close", self._place, self._file.close)
        else:
            self._file.close()


def nameless(place: str) -> str:
    """A path without what differs from process to process: `run/.best.json.HOST.1a2b3c4d.77` is `run/.best.json.~`."""
    return re.sub(r"(/\.[^/]+)\.[^/]+\.[0-9a-f]{8}\.\d+(?=/|$)", r"\1.~", place)


def number_steps(watch: Watch) -> None:
    """Make the beginning of every update an operation too: a moment between those on files."""
    from chopmix.training.loop import Learner

    original = Learner.update

    def update(learner, step, share):
        watch.meet("update", f"step {step}", lambda: None)
        return original(learner, step, share)

    Learner.update = update


def poison(batches: Sequence[int], weights: bool) -> None:
    """Let training go wrong at these batches."""
    import torch
    from chopmix.training.loop import Trainer

    original = Trainer.update

    @torch.no_grad()
    def spoil(trainer) -> None:
        next(trainer.learner.model.parameters()).fill_(torch.nan)

    def update(trainer):
        meant = trainer.loader.batch_number(trainer.step) in batches
        if meant and not weights:
            spoil(trainer)
        loss = original(trainer)
        if meant and weights:
            spoil(trainer)
        return loss

    Trainer.update = update


def obey(plan: Plan, forked: bool = True) -> None:
    """The life of one run: this process trains, watched, with its output in `said.txt`."""
    if forked:
        os.setsid()
    os.chdir(plan.folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1), os.dup2(said, 2)
    os.environ["CHOPMIX_CACHE"] = os.path.join(plan.folder, "cache")
    for place, value in plan.settings.items():
        module, _, name = place.partition(":")
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
            told = {"seen": [(kind, nameless(place)) for kind, place in watch.seen], "unseen": watch.unseen}
            Path(plan.folder, plan.log).write_text(json.dumps(told))
    sys.exit(status)
