"""The checkpoints of a run in training: writing, deleting old ones, `last.json` and `best.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints import files as checkpoint
from .state import Best


@dataclass(frozen=True, kw_only=True)
class Saver:
    """Writes the checkpoints of one run; only the first process does."""

    folder: Path
    writes: bool
    """Whether this process is the one that writes."""
    every: int
    """Steps between two regular checkpoints (see `averaged_steps`)."""
    steps: int
    """The last step of the run."""
    keep: int
    """How many of the newest are kept, besides the best."""
    average: int | None
    """How many of the newest regular checkpoints are averaged at the end; None: no averaging."""
    best: str
    """The metric by which the best is chosen, such as `val/loss`."""
    check: Callable[[], None] = lambda: None
    """Called before anything is written: raises OSError where the folder is another one now."""
    known: Mapping[str, Any]
    """Entries of every `state.json`: `data` and `vocabularies` (fingerprints), `torch` (version), `threads`."""

    def save(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], averages: Mapping[str, Tensor] | None,
        state: Mapping[str, Any], best: Best | None,
    ) -> None:  # fmt: skip
        """Write a checkpoint: `tensors` by part (`model`, `optimizer`), the `averages` of the weights as part `ema`.
        Where the step has one already, only its state and averages are replaced. Then delete what need not be kept.
        Raises NotFiniteError, in all processes, where one of `tensors` is not finite; OSError where writing fails."""
        checkpoint.check_finite(tensors)
        if not self.writes:
            return
        self.check()
        more, state = {"ema": averages} if averages is not None else {}, {**state, **self.known}
        if step in checkpoint.steps(self.folder):
            checkpoint.add(self.folder, step, more, state)
        else:
            checkpoint.save(self.folder, step, {**tensors, **more}, state)
        self.point_to_best(best)
        checkpoint.point(self.folder, "last", step)
        checkpoint.prune(self.folder, self.keep, also=self.averaged_steps())

    def point_to_best(self, best: Best | None) -> None:
        """Make `best.json` agree with the checkpoint's state: a run killed between writing the two is repaired here."""
        told = best and checkpoint.read_step(self.folder, "best") == best.step
        if best and not told and best.step in checkpoint.steps(self.folder):
            checkpoint.point(self.folder, "best", best.step, **best.metrics)

    def averaged_steps(self) -> list[int]:
        """The steps of the checkpoints that are averaged at the end: the newest `average` whose step is a multiple of
        `every` or the last one, so none of an interruption or a new best."""
        if not self.average:
            return []
        regular = [step for step in checkpoint.steps(self.folder) if step % self.every == 0 or step == self.steps]
        return regular[-self.average :]
