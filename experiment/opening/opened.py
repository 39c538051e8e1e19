"""A run's folder, opened: the trained model and what it takes to use it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...data.base import Dataset
from ...models.generation.beam_search import Search
from ...models.model import Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...training.objective import autocast
from ..data.columns import columns_of
from ..folder.reading import RunError, say_aside
from ..settings.config import Config
from .opened_parts import opened_parts

AnyOpened = TypeVar("AnyOpened", bound="Opened")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A trained model with everything needed to use it. Nothing in it changes."""

    folder: Path
    config: Config
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    which: str = "last"
    """Which checkpoint was asked for: `best` or `last`."""
    precision: str = "float32"
    """The arithmetic in which it is evaluated: that of its training."""
    missing: tuple[str, ...] = ()
    """The parameters that an imported directory lacked."""

    @classmethod
    def open(
        cls: type[AnyOpened],
        folder: Path,
        *,
        checkpoint: str = "best",
        device: str = "auto",
        trust: Collection[str] = (),
    ) -> AnyOpened:
        """Open a trained run's folder: its model (the averaged weights where it keeps them), vocabulary and tasks.

        `checkpoint` is `best` or `last`; where the run has none of the kind, or it is damaged, another one is
        used, and this is said on standard error. Nothing in the folder is executed; a run that needs code
        outside chopmix (its author's own tokenizer) is opened only where `trust` names the modules. Raises
        RunError when there is nothing to open, CheckpointError when none is whole.
        """
        return cls(**opened_parts(folder, checkpoint, device, trust))

    @property
    def name(self) -> str:
        """The run and the step that are read, for messages and records."""
        return f"{self.folder}, {self.which} checkpoint: step {self.step:,}"

    def check_heads(self) -> None:
        """Raises RunError where a task's head was not in the directory that was imported: it would answer at random."""
        for name in self.tasks:
            if any(each.startswith(f"heads.{name}.") for each in self.missing):
                raise RunError(
                    f"{self.folder}: the directory that was imported has no head for {name!r}, which would "
                    "answer at random; "
                    "`chopmix embed` gives the model's vectors, and a head can be trained (from: RUN)"
                )

    def dataset(self) -> Dataset:
        """The data set that it was trained on. Raises RunError for an imported run, which has none."""
        if self.config.data.dataset is None:
            raise RunError(f"{self.folder} was imported and has no data of its own; name some with --data")
        return self.config.data.dataset()

    def reads(self) -> tuple[dict[str, str], bool]:
        """The columns of data that it reads, by kind (`image`, `sound`, `text`, `file`, `label`), and whether
        it reads one corpus of text instead."""
        made = {name for task in self.tasks.values() for name in task.needs.makes}
        found = {
            column: self.choppers[name].kind for name, column in columns_of(self.config).items() if name not in made
        }
        found |= {column: "label" for task in self.tasks.values() for column in task.needs.columns}
        return found, self.config.training.samples_per_step is None and list(found.values()) == ["text"]

    @property
    def model_device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def arithmetic(self) -> AbstractContextManager[None]:
        """The arithmetic of its training: what is computed inside is evaluated as it was trained."""
        return autocast(self.model_device, self.precision)

    def searching(self: AnyOpened, **given: Any) -> AnyOpened:
        """The run that searches for texts in another way (`beams`, `length_penalty`, `no_repeat`); what is
        not given stays as the task says. A task that reads texts off its output (CTC) has `beams` alone.
        Raises ValueError for a search that means nothing."""
        Search(**given)
        tasks = {name: copy(task) for name, task in self.tasks.items()}
        for task in tasks.values():
            task.search = replace(task.search, **given)
        return replace(self, tasks=tasks)

    def text_task(self) -> tuple[str, str]:
        """The first task that writes text, and the input that it writes. Raises RunError where none does."""
        for name, task in self.tasks.items():
            if task.needs.generates:
                return name, task.target
        raise RunError(
            f"{self.folder} writes no text: none of its tasks ({', '.join(self.tasks)}) is language_modeling or "
            "sequence_to_sequence"
        )

    def record(self, result: Mapping[str, Any]) -> None:
        """Append a result to the run's `evaluations.jsonl`; where the folder cannot be written to, that is said."""
        line = json.dumps({"step": self.step, "checkpoint": self.which, **result}) + "\n"
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        )  # a link in a stranger's run leads elsewhere
        try:
            with open(os.open(self.folder / "evaluations.jsonl", flags, 0o644), "a") as file:
                file.write(line)
        except OSError as error:
            say_aside(f"{self.folder}/evaluations.jsonl cannot be written to: {error.strerror}")
