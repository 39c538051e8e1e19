"""A run's folder, opened: the trained model with its configuration, choppers and tasks."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...data.base import Dataset
from ...inference.generating import generating_tasks, searching_tasks
from ...models.model import Model
from ...tasks.base import Task
from ...tokenizers.base import Chopper
from ...tokenizers.files.trust import NOTHING, Trust
from ...training.objective import autocast
from ..folder.reading import RunError, say_aside
from ..settings.config import Config
from .opened_parts import opened_parts

AnyOpened = TypeVar("AnyOpened", bound="Opened")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A trained model with everything needed to use it. Immutable."""

    folder: Path
    config: Config
    step: int
    model: Model
    tasks: Mapping[str, Task]
    choppers: Mapping[str, Chopper]
    which: str = "last"
    """Which checkpoint was asked for: `best` or `last`."""
    precision: str = "float32"
    """`float32` or `bfloat16`: the precision of its training, where this device has it."""
    missing: tuple[str, ...] = ()
    """The parameters that an imported directory lacked."""

    @classmethod
    def open(
        cls: type[AnyOpened], folder: Path, *, checkpoint: str = "best", device: str = "auto",
        trust: Trust = NOTHING,
    ) -> AnyOpened:  # fmt: skip
        """Open a trained run's folder; see `load_run` in run.py."""
        return cls(**opened_parts(folder, checkpoint, device, trust))

    @property
    def name(self) -> str:
        """Folder, checkpoint and step, for messages: `runs/quickstart, best checkpoint: step 900`."""
        return f"{self.folder}, {self.which} checkpoint: step {self.step:,}"

    def check_heads(self) -> None:
        """Raises RunError where a task's head was missing in the imported directory: it would predict at random."""
        for name in self.tasks:
            if any(each.startswith(f"heads.{name}.") for each in self.missing):
                raise RunError(
                    f"{self.folder}: the directory that was imported has no head for {name!r}, which would answer at "
                    "random; `chopmix embed` gives the model's vectors, and a head can be trained (from: RUN)"
                )

    def dataset(self) -> Dataset:
        """The data set of its training. Raises RunError for an imported run, which has none."""
        if self.config.data.dataset is None:
            raise RunError(f"{self.folder} was imported and has no data of its own; name some with --data")
        return self.config.dataset()

    def reads(self) -> tuple[dict[str, str], bool]:
        """The kind of each data column that it reads (`image`, `sound`, `text`, `file`, `label`), and whether it was
        trained on a text corpus: `({"image": "image", "digit": "label"}, False)`."""
        wiring = self.config.wiring
        found = {column: self.choppers[n].kind for n, column in wiring.columns.items() if n not in wiring.made}
        found |= {column: "label" for task in self.tasks.values() for column in task.needs.columns}
        return found, list(found.values()) == ["text"] and not self.config.on_samples

    @property
    def model_device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    def arithmetic(self) -> AbstractContextManager[None]:
        """A context in which the model computes in the precision of its training (see `precision`)."""
        return autocast(self.model_device, self.precision)

    def searching(self: AnyOpened, **given: Any) -> AnyOpened:
        """The same run with another search for generated texts: `given` are fields of `Search` (`beams`,
        `length_penalty`, `no_repeat`); the others stay as each task has them. CTC uses `beams` alone. Raises
        ValueError for values that `Search` refuses."""
        return replace(self, tasks=searching_tasks(self.tasks, **given))

    def generating(
        self: AnyOpened, *, guidance: float | None = None, temperature: float | None = None, steps: int | None = None,
        drafts: int | None = None,
    ) -> AnyOpened:  # fmt: skip
        """The same run whose evaluations generate items with this `guidance`, drawn at this `temperature`, or, of a
        task that refines drafts, in so many `steps`, the best of so many `drafts`; what is None stays as each task has
        it. Raises RunError where no task generates so, ValueError for values outside their ranges."""
        try:
            tasks = generating_tasks(self.tasks, guidance, temperature, steps, drafts)
        except LookupError as error:
            raise RunError(f"{self.folder} {error.args[0]}") from None
        return replace(self, tasks=tasks)

    def text_task(self, given: Collection[str] = (), target: str | None = None) -> tuple[str, str]:
        """The names of the first task that generates items, and of the input that it generates: `target`, else one that
        is not `given`. Raises RunError where there is none."""
        tasks = self.tasks.items()
        writing = [(name, each.target) for name, each in tasks if each.needs.generates or each.needs.refines]
        if target is not None and target not in [input for _, input in writing]:
            possible = ", ".join(input for _, input in writing) or "nothing"
            raise RunError(f"{self.folder} does not generate {target!r}; it generates {possible}")
        for name, input in writing:
            if input == target or (target is None and input not in given):
                return name, input
        if writing:
            return writing[0]
        raise RunError(
            f"{self.folder} generates nothing: none of its tasks ({', '.join(self.tasks)}) is language_modeling, "
            "sequence_to_sequence or masked_diffusion. `chopmix predict` gives its answers"
        )

    def record(self, result: Mapping[str, Any], folder: Path | None = None, option: str = "--output DIR") -> None:
        """Append a result, with `step` and `checkpoint`, as a line of `evaluations.jsonl` in the run's folder, or in
        another one; where that cannot be written to, standard error says so, with the `option` that writes elsewhere.
        """
        line = json.dumps({"step": self.step, "checkpoint": self.which, **result}) + "\n"
        # in a run from elsewhere a link may lead out of it, and a pipe may have no reader
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            with open(os.open((folder or self.folder) / "evaluations.jsonl", flags, 0o644), "a") as file:
                file.write(line)
        except OSError as error:
            written = f"{folder or self.folder}/evaluations.jsonl"
            say_aside(f"{written} cannot be written to: {error.strerror}; {option} writes to another place")
