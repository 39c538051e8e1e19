"""One run from its lock to its summary."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from ..data.processes import Processes
from ..tokenizers.files.writing import write_json
from ..training.checkpoints.files import NotFiniteError
from ..training.checkpoints.state import State
from ..training.preflight import (
    check_attribution,
    check_batches_are_whole,
    check_best,
    check_leaks,
    check_prompt,
    lines_about_inputs,
)
from ..training.record.metrics_file import MetricsFile
from ..training.record.progress import Progress, duration
from .assemble import Experiment, assemble, start
from .build import columns_of, encoded_inputs
from .finish import finish
from .folder.claim import check_is_free, claim, summary_of
from .folder.lock import RunLock
from .resume import go_back, resume
from .settings.config import Config


def train(config: Config) -> tuple[dict[str, float], int]:
    """One run; gives its summary's metrics and the exit status (130 or 143 when it was asked to stop).

    The run's folder belongs to it meanwhile: a second start there is told so, and changes nothing."""
    processes = Processes.start(config.training.device)
    progress, folder = Progress(config.training.steps), Path(config.out)
    if processes.is_first:
        check_is_free(folder)
    with RunLock(folder) if processes.is_first else nullcontext():
        if processes.is_first:
            claim(config, folder)
        summary = processes.told(summary_of(folder, config.training.steps) if processes.is_first else None)
        if summary is not None:
            if processes.is_first:
                progress.say(f"{folder} is finished: {json.dumps(summary)}")
            return summary, 0
        experiment = assemble(config, processes, progress)
        metrics = fit(experiment)
        trainer = experiment.trainer
        summary = {"step": trainer.step, "seconds": round(trainer.log.seconds, 2), **metrics}
        stopped = trainer.stop.signal if trainer.step < trainer.steps else None
        if stopped:
            saved = f"saved {folder} at step {trainer.step:,}; the same command goes on from there"
            nothing = f"stopped {folder} before its first step; the same command starts it again"
            experiment.say(f"{stopped.name}: {saved if trainer.step else nothing}")
        elif processes.is_first:
            write_json(folder / "summary.json", summary)
            progress.say(f"done: {folder}, {trainer.step:,} steps in {duration(trainer.log.seconds)}")
        return summary, 128 + stopped if stopped else 0


def fit(experiment: Experiment) -> dict[str, float]:
    """Train from where the run stands to its end, or until asked to stop; gives the last validation metrics."""
    state, trainer = resume(experiment), experiment.trainer
    preflight(experiment)
    introduce(experiment)
    start(experiment)
    with (
        trainer.loader,
        trainer.stop,
    ):  # the loader's thread ends here, even where Ctrl-C came while it was being started
        while True:
            try:
                with metrics_file(experiment, state) as trainer.log.record:
                    metrics = trainer.fit()
                    return metrics | finish(experiment) if trainer.step == trainer.steps else metrics
            except NotFiniteError as error:
                state = go_back(experiment, error)


def preflight(experiment: Experiment) -> None:
    """Everything that can be checked before the first step. Raises ValueError for the first thing that does not
    hold."""
    config, tasks, splits = experiment.config, experiment.tasks, experiment.splits
    settings = config.training
    rows = settings.rows_per_micro_batch or splits["train"].rows
    whole = rows >= splits["train"].rows and experiment.processes.count == 1 and not settings.mixup
    check_batches_are_whole(tasks, whole)
    check_best(config.checkpoints.best, tasks, config.evaluation.generated)
    check_prompt(config.evaluation.prompt, tasks, experiment.choppers)
    if config.evaluation.attribution:
        check_attribution(splits["val"])
    check_leaks(experiment.model, splits["train"], settings.seed)


def introduce(experiment: Experiment) -> None:
    """Say what is trained, where, and how: before the first step, which may take its time."""
    processes, choices = experiment.processes, experiment.choices
    count = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    compiled = ", compiled" if choices.compile else ""
    several = f" in {processes.count} processes" if processes.count > 1 else ""
    experiment.say(
        f"{experiment.folder}: {count:,} parameters on {processes.device.type}{several} in "
        f"{choices.precision}{compiled}"
    )
    for line in about_inputs(experiment) if experiment.trainer.step == 0 else ():
        experiment.say(line)


def about_inputs(experiment: Experiment) -> list[str]:
    """What is worth telling of a configuration's inputs before it is trained."""
    config = experiment.config
    return lines_about_inputs(experiment.splits["train"], experiment.tasks, columns_of(config), encoded_inputs(config))


def metrics_file(experiment: Experiment, state: State | None) -> MetricsFile:
    """`metrics.jsonl` from where the run stands."""
    return MetricsFile(
        experiment.folder, step=experiment.trainer.step, lines=state.records if state else (),
        tensorboard=experiment.config.logging.tensorboard, writes=experiment.processes.is_first,
    )  # fmt: skip
