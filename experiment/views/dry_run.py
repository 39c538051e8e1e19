"""`--dry-run`: everything that can be known before training, printed, and one real step."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from ...data.processes import Processes
from ...files.printing import plain_console
from ...training.log import Progress, peak_memory, scaled
from ..assemble import assemble, start
from ..settings.config import Config
from ..settings.document import dumped
from ..train import about_inputs, counted, preflight, resume
from .costs import batch_lines, leak_lines, parameter_table, rate_table


def dry_run(config: Config) -> None:
    """Print the resolved configuration, the costs, and why no target can reach its own predictor; run one step.

    The run's folder is a temporary one. Raises what training would raise before its first step.
    """
    processes = Processes.start(config.training.device)
    console = plain_console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(dumped(config.tree).rstrip())
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False)
        known = counted(replace(config, out=Path(folder), logging=logging))
        experiment = assemble(known, processes, Progress(1))
        resume(experiment)
        preflight(experiment)
        trainer = experiment.trainer
        with trainer.loader as loader:
            console.print(parameter_table(experiment.model))
            console.print(rate_table(trainer.learner))
            if processes.is_first and experiment.data.about:
                told = ", ".join(f"{name} {value}" for name, value in experiment.data.about.items())
                console.print(f"data: {config.data.dataset.use}, {told}")
            for line in (*batch_lines(experiment), *about_inputs(experiment), *leak_lines(experiment.model)):
                console.print(line)
            start(experiment)
            loss = processes.sum(trainer.learner.update(0, loader.load(0))).item()
        memory = scaled(peak_memory(processes.device), "B")
        console.print(f"one step: loss {loss:.4f}, peak memory of the whole process {memory}")
