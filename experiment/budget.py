"""`training.minutes`: a budget of time, turned into a number of steps once, after a timed warm-up; schedules, logs and
checkpoints see steps alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..data.processes import Processes
from ..tokenizers.files.reading import DataError
from ..tokenizers.files.records import Record, read_record
from ..tokenizers.files.writing import write_json
from ..training.checkpoints.files import CheckpointError
from ..training.record.progress import Progress
from .assembly.assemble import assemble, start
from .settings.config import Config

WARM, LEAST, MOST = 3, 5, 200
"""Steps before the clock starts, and the fewest and the most steps that are timed."""
SHARE, SECONDS = 0.02, 20.0
"""The timed steps take this share of the budget, at most so many seconds."""
STAND_IN = 1000
"""The steps of a run whose number is not known yet."""


class Budget(Record):
    """The content of a run's `budget.json`."""

    minutes: Annotated[float, Field(gt=0)]
    seconds_per_step: Annotated[float, Field(gt=0)]

    @property
    def steps(self) -> int:
        """How many steps the minutes are, at least 1."""
        return max(1, int(self.minutes * 60 / self.seconds_per_step))


def with_steps(config: Config, processes: Processes, progress: Progress) -> Config:
    """The configuration with `training.steps`: as it is, or, where it names `minutes`, as many as these are by the
    run's `budget.json`, which is made by timing some steps of a model that is then thrown away. Raises CheckpointError
    for a damaged file."""
    minutes = config.training.minutes
    if minutes is None:
        return config
    file = Path(config.out) / "budget.json"
    found = processes.told(read_budget(file) if processes.is_first else None)
    if found is None:
        found = Budget(minutes=minutes, seconds_per_step=seconds_per_step(config, processes, progress))
        found = processes.told(found)
    if found.minutes != minutes:
        found = Budget(minutes=minutes, seconds_per_step=found.seconds_per_step)
    if processes.is_first:
        write_json(file, found.model_dump(), within=file.parent)
        progress.steps = found.steps
        progress.say(f"{minutes:g} minutes at {found.seconds_per_step:.3g} s a step: {found.steps:,} steps")
    return counted(config, found.steps)


def read_budget(file: Path) -> Budget | None:
    """The `budget.json` of a run; None where there is none. Raises CheckpointError for a damaged file."""
    try:
        return read_record(file, Budget) if file.exists() else None
    except DataError as error:
        raise CheckpointError(f"{error}; delete it, and some steps are timed again") from None


def counted(config: Config, steps: int = STAND_IN) -> Config:
    """The configuration with this number of steps where it names minutes, for what needs one."""
    training = config.training
    return config if training.minutes is None else replace(config, training=replace(training, steps=steps))


def seconds_per_step(config: Config, processes: Processes, progress: Progress) -> float:
    """The time of a training step, loading included, in seconds, on average over some."""
    experiment = assemble(counted(config), processes, progress)
    start(experiment)
    learner, step = experiment.trainer.learner, 0

    def timed(count: int) -> float:
        nonlocal step
        begun = time.perf_counter()
        for _ in range(count):
            loss = learner.update(step, loader.load(step))
            step += 1
        float(loss)  # waits for the device
        return (time.perf_counter() - begun) / count

    with experiment.trainer.loader as loader:
        timed(WARM)
        first = processes.told(timed(LEAST) if processes.is_first else (timed(LEAST), None)[1])
        seconds = min(SECONDS, SHARE * config.training.minutes * 60)
        more = min(max(int(seconds / first) - LEAST, 0), MOST)
        return (first * LEAST + timed(more) * more) / (LEAST + more) if more else first
