"""One run from locking its folder to writing its summary, with preflight checks and the lines that it prints before its
first step."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from ..data.processes import Processes
from ..training import preflight as checks
from ..training.checkpoints.files import NotFiniteError
from ..training.record.progress import Progress
from .assembly.assemble import Experiment, assemble, start
from .data.columns import columns_of, encoded_inputs
from .finish import finish, summarize
from .folder.claim import check_is_free, claim, run_lock, summary_of
from .resume import go_back, metrics_file, resume
from .settings.config import Config


def train(config: Config) -> tuple[dict[str, float], int]:
    """Train one run, or go on with it; gives its summary (`step`, `seconds`, metrics) and the exit status: 0, or 130
    (SIGINT) or 143 (SIGTERM) when it was asked to stop.

    The run's folder is locked meanwhile: a second start there raises LockedError and changes nothing. Raises RunError
    for a folder of another configuration, ValueError for anything else that cannot be trained."""
    processes = Processes.start(config.training.device)
    progress, folder = Progress(config.training.steps), Path(config.out)
    if processes.is_first:
        check_is_free(folder)
    with run_lock(folder) if processes.is_first else nullcontext():
        if processes.is_first:
            claim(config, folder)
        summary = processes.told(summary_of(folder, config.training.steps) if processes.is_first else None)
        if summary is not None:
            if processes.is_first:
                progress.say(f"{folder} is finished: {json.dumps(summary)}")
            return summary, 0
        experiment = assemble(config, processes, progress)
        return summarize(experiment, fit(experiment))


def fit(experiment: Experiment) -> dict[str, float]:
    """Train from the newest checkpoint (or step 0) to the last step, or until asked to stop; gives the last validation
    metrics. Where the loss or the weights become non-finite, the run goes back to its last sound checkpoint, once."""
    state, trainer = resume(experiment), experiment.trainer
    preflight(experiment)
    introduce(experiment)
    start(experiment)
    with trainer.loader, trainer.stop:  # the loader's thread ends here, even where Ctrl-C came while it was started
        while True:
            try:
                with metrics_file(experiment, state) as trainer.log.record:
                    metrics = trainer.fit()
                    return metrics | finish(experiment) if trainer.step == trainer.steps else metrics
            except NotFiniteError as error:
                state = go_back(experiment, error)


def preflight(experiment: Experiment) -> None:
    """Check before the first step that tasks which need whole batches get them, `checkpoints.best` is a metric, the
    prompt can be encoded, attribution has inputs to leave out, and no target of the first batch can reach its own
    predictor. Raises ValueError for the first check that fails."""
    config, tasks, splits = experiment.config, experiment.data.tasks, experiment.data.splits
    settings = config.training
    rows = settings.rows_per_micro_batch or splits["train"].rows
    whole = rows >= splits["train"].rows and experiment.processes.world_size == 1 and not settings.mixup
    checks.check_batches_are_whole(tasks, whole)
    checks.check_best(config.checkpoints.best, tasks, config.evaluation.generated)
    checks.check_prompt(config.evaluation.prompt, tasks, experiment.data.choppers)
    if config.evaluation.attribution:
        checks.check_attribution(splits["val"])
    checks.check_leaks(experiment.model, splits["train"], settings.seed)


def introduce(experiment: Experiment) -> None:
    """Print folder, number of trainable parameters, device, precision, and notes about the inputs; before the first
    step, since that may take long."""
    processes, choices = experiment.processes, experiment.choices
    count = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    compiled = ", compiled" if choices.compile else ""
    several = f" in {processes.world_size} processes" if processes.world_size > 1 else ""
    where = f"{processes.device.type}{several} in {choices.precision}{compiled}"
    experiment.say(f"{experiment.folder}: {count:,} parameters on {where}")
    for line in about_inputs(experiment) if experiment.trainer.step == 0 else ():
        experiment.say(line)


def about_inputs(experiment: Experiment) -> list[str]:
    """Sentences about a configuration's inputs: how often each is withheld, and which ones hold a task's target."""
    config, data = experiment.config, experiment.data
    return checks.lines_about_inputs(data.splits["train"], data.tasks, columns_of(config), encoded_inputs(config))
