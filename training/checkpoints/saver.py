"""When a run is saved, what is kept of it, and where the best is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from . import files as checkpoint
from .state import Best


@dataclass(frozen=True, kw_only=True)
class Saver:
    """The checkpoints of one run, of which the first process writes all."""

    folder: Path
    writes: bool
    """Whether this process is the one that writes."""
    every: int
    steps: int
    keep: int
    """How many of the newest are kept, besides the best."""
    average: int | None
    """Of how many of the newest the weights are averaged at the end."""
    best: str
    """The metric by which the best is chosen."""
    known: Mapping[str, Any]
    """What every state tells of the data, the vocabularies, the machine."""

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], averages: Mapping[str, Tensor] | None,
        state: Mapping[str, Any], best: Best | None,
    ) -> None:  # fmt: skip
        """Write a checkpoint, or give one that is there its new state, and averages where there are some now;
        delete what need not be kept. Raises NotFiniteError, in all processes, for weights that are no
        numbers."""
        checkpoint.check_finite(tensors)
        if not self.writes:
            return
        more, state = {"ema": averages} if averages is not None else {}, {**state, **self.known}
        if step in checkpoint.steps(self.folder):
            checkpoint.add(self.folder, step, more, state)
        else:
            checkpoint.save(self.folder, step, {**tensors, **more}, state)
        self.point_to_best(best)
        checkpoint.point(self.folder, "last", step)
        checkpoint.prune(self.folder, self.keep, also=self.averaged_steps())

    def point_to_best(self, best: Best | None) -> None:
        """Let `best.json` say what the checkpoint says: a kill between the two is put right here."""
        told = best and checkpoint.read_step(self.folder, "best") == best.step
        if best and not told and best.step in checkpoint.steps(self.folder):
            checkpoint.point(self.folder, "best", best.step, **best.metrics)

    def averaged_steps(self) -> list[int]:
        """The newest checkpoints that are averaged at the end: regular ones, not those of an interruption or
        a new best."""
        if not self.average:
            return []
        regular = [step for step in checkpoint.steps(self.folder) if step % self.every == 0 or step == self.steps]
        return regular[-self.average :]
