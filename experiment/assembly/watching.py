"""The evaluator of a run and the saver of its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ...data.processes import Processes
from ...training.checkpoints.saver import Saver
from ...training.evaluator import Evaluator
from ...training.objective import Objective
from ..data.opened_data import OpenedData
from ..folder.reading import fingerprints
from ..opening.played import play_metrics
from ..run import Run
from ..settings.config import Config
from .sampling import samples_of


def build_evaluator(config: Config, data: OpenedData, processes: Processes, objective: Objective) -> Evaluator:
    """The evaluator of the validation split; at each evaluation it also lets the model generate sample texts."""

    def as_run(step: int) -> Run:
        return run_of(config, data, objective, step)

    def play(step: int) -> dict[str, float]:
        training = objective.model.training
        objective.model.eval()
        found = play_metrics(as_run(step), how) if how else {}
        objective.model.train(training)
        return {f"val/{name}": value for name, value in found.items()}

    how = config.evaluation.play
    return Evaluator(
        objective=objective, splits=data.splits, processes=processes, rows=config.evaluation.rows, play=play,
        generated=config.evaluation.generated, sample=lambda step: samples_of(as_run(step), data.splits["val"]),
        returns=returns_of(config),
    )  # fmt: skip


def returns_of(config: Config) -> list[str]:
    """The names of the mean returns that an evaluation measures by playing: `val/return_at_500`."""
    return [f"val/{name}" for name in config.evaluation.play.asked] if config.evaluation.play else []


def run_of(config: Config, data: OpenedData, objective: Objective, step: int = 0) -> Run:
    """A run in training as one that was opened."""
    return Run(folder=Path(config.out), config=config, step=step, model=objective.model, tasks=data.tasks,
               choppers=data.choppers)  # fmt: skip


def build_saver(config: Config, data: OpenedData, writes: bool, check: Callable[[], None]) -> Saver:
    """The saver of checkpoints into the run's folder. `writes`: whether this process is the one that writes files;
    `check`: see `Saver`."""
    settings = config.checkpoints
    return Saver(
        folder=Path(config.out), writes=writes, every=settings.every, steps=config.training.steps, keep=settings.keep,
        average=settings.average, best=settings.best, check=check,
        known={"vocabularies": fingerprints(data.choppers), "data": data.contents, "torch": torch.__version__,
               "threads": torch.get_num_threads()},
    )  # fmt: skip
