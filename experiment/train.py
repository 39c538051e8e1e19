"""One run from locking its folder to writing its summary."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

from ..data.processes import Processes
from ..training.checkpoints.files import NotFiniteError
from ..training.record.progress import Progress
from .assembly.assemble import Experiment, assemble, start
from .budget import with_steps
from .finish import finish, summarize
from .folder.claim import check_is_free, check_links, claim, run_lock, summary_of
from .preflight import introduce, preflight
from .resume import go_back, metrics_file, resume
from .settings.config import Config


def train(config: Config) -> tuple[dict[str, float], int]:
    """Train one run, or go on with it; gives its summary (`step`, `seconds`, metrics) and the exit status: 0, or 130
    (SIGINT) or 143 (SIGTERM) when it was asked to stop.

    The run's folder is locked meanwhile: a second start there raises LockedError and changes nothing. Raises RunError
    for a folder of another configuration, OSError where the folder or its lock is deleted or replaced meanwhile,
    ValueError for anything else that cannot be trained."""
    processes = Processes.start(config.training.device)
    progress, folder = Progress(config.training.steps or 0), Path(config.out)
    if processes.is_first:
        if config.run_folder:
            check_links(config.run_folder)
        check_is_free(folder)
    with run_lock(folder) if processes.is_first else nullcontext(lambda: None) as check:
        if processes.is_first:
            claim(config, folder)
        config = with_steps(config, processes, progress)
        summary = processes.told(summary_of(folder, config.training.steps) if processes.is_first else None)
        if summary is not None:
            if processes.is_first:
                progress.say(f"{folder} is finished: {json.dumps(summary)}")
            return summary, 0
        experiment = assemble(config, processes, progress, check)
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
