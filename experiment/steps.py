"""The number of steps of a run whose configuration has `minutes` or `epochs` instead of `steps`. The steps of an epoch
are `Split.steps_of` (`data/split.py`)."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field

from ..data.processes import Processes
from ..files.reading import DataError
from ..files.records import Record, read_record
from ..files.writing import write_json
from ..training.checkpoints import CheckpointError
from ..training.progress import Progress
from .assemble import assemble, open_data, start
from .settings.config import Config

WARM, FEWEST_TIMED, MOST_TIMED = 3, 5, 200
"""The number of steps before time is measured, and the smallest and largest number of timed steps."""

SHARE, TIMED_SECONDS = 0.02, 20.0
"""The timed steps take about this share of the time limit, but at most this number of seconds."""

STAND_IN = 1000
"""The number of steps in the configuration of a run with `minutes`, until the real number of steps is computed."""


class EpochSteps(Record):
    """The content of a run's `epochs.json`."""

    epochs: Annotated[float, Field(gt=0)]
    steps: Annotated[int, Field(gt=0)]


class Budget(Record):
    """The content of a run's `budget.json`."""

    minutes: Annotated[float, Field(gt=0)]
    seconds_per_step: Annotated[float, Field(gt=0)]

    @property
    def steps(self) -> int:
        """The number of steps that fit into the minutes, at least 1."""
        return max(1, int(self.minutes * 60 / self.seconds_per_step))


StoredSteps = TypeVar("StoredSteps", Budget, EpochSteps)


def with_steps(config: Config, processes: Processes, progress: Progress) -> Config:
    """Returns a configuration without `training.steps` with the number of steps. With
    `minutes`, the number of steps is computed from the run's `budget.json`. If this file does not exist, some steps of
    a temporary model are timed, and the file is written. With `epochs`, see `with_steps_of_epochs`. Raises
    CheckpointError if the file is damaged."""
    minutes = config.training.minutes
    if config.training.epochs is not None:
        return with_steps_of_epochs(config, config.training.epochs, processes, progress)
    file = Path(config.out) / "budget.json"
    budget = processes.broadcast(read_stored(file, Budget) if processes.is_first else None)
    if budget is None:
        budget = Budget(minutes=minutes, seconds_per_step=seconds_per_step(config, processes, progress))
        budget = processes.broadcast(budget)
    if budget.minutes != minutes:
        budget = Budget(minutes=minutes, seconds_per_step=budget.seconds_per_step)
    if processes.is_first:
        write_json(file, budget.model_dump(), within=file.parent)
        progress.steps = budget.steps
        progress.say(f"{minutes:g} minutes at {budget.seconds_per_step:.3g} s a step: {budget.steps:,} steps")
    return counted(config, budget.steps)


def with_steps_of_epochs(config: Config, epochs: float, processes: Processes, progress: Progress) -> Config:
    """Returns the configuration with the number of steps of `epochs` epochs. It is read from the run's `epochs.json`.
    If this file does not exist, or is for another number of epochs, the steps are counted in the training data, and the
    file is written. Raises CheckpointError if the file is damaged."""
    file = Path(config.out) / "epochs.json"
    stored = processes.broadcast(read_stored(file, EpochSteps) if processes.is_first else None)
    if stored is None or stored.epochs != epochs:
        split = open_data(counted(config), processes, lambda text: None).splits["train"]
        stored = EpochSteps(epochs=epochs, steps=split.steps_of(epochs, config.training.seed))
        if processes.is_first:
            write_json(file, stored.model_dump(), within=file.parent)
            progress.say(f"{epochs:g} epochs of {len(split):,} {split.unit}: {stored.steps:,} steps")
    progress.steps = stored.steps
    return counted(config, stored.steps)


def read_stored(file: Path, kind: type[StoredSteps]) -> StoredSteps | None:
    """Returns the content of a run's `budget.json` or `epochs.json`; None if the file does not exist. Raises
    CheckpointError if the file is damaged."""
    try:
        return read_record(file, kind) if file.exists() else None
    except DataError as error:
        raise CheckpointError(f"{error}; delete it and run the same command again to write it") from None


def counted(config: Config, steps: int = STAND_IN) -> Config:
    """Returns the configuration with this number of steps if it has `minutes` or `epochs`, else unchanged. For
    functions that need `training.steps`."""
    training = config.training
    return (
        config
        if training.minutes is None and training.epochs is None
        else replace(config, training=replace(training, steps=steps))
    )


def seconds_per_step(config: Config, processes: Processes, progress: Progress) -> float:
    """Returns the average time of a training step in seconds, including the loading of the data."""
    experiment = assemble(counted(config), processes, progress)
    start(experiment)
    learner, step = experiment.trainer.learner, 0

    def timed(count: int) -> float:
        nonlocal step
        started = time.perf_counter()
        for _ in range(count):
            loss = learner.update(step, loader.load(step))
            step += 1
        float(loss)  # waits for the device
        return (time.perf_counter() - started) / count

    with experiment.trainer.loader as loader:
        timed(WARM)
        first = processes.broadcast(timed(FEWEST_TIMED) if processes.is_first else (timed(FEWEST_TIMED), None)[1])
        seconds = min(TIMED_SECONDS, SHARE * config.training.minutes * 60)
        remaining = min(max(int(seconds / first) - FEWEST_TIMED, 0), MOST_TIMED)
        return (
            (first * FEWEST_TIMED + timed(remaining) * remaining) / (FEWEST_TIMED + remaining) if remaining else first
        )
