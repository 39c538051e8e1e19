"""From a configuration to everything that training needs: fitted data, model, optimizer, evaluator, checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...data.processes import Processes
from ...models.model import Model
from ...tokenizers.files.writing import write_json
from ...training.loop import Trainer
from ...training.record.progress import Progress
from ...training.stop import orderly_end
from ..data.opened_data import OpenedData, open_data
from ..settings.config import Config
from ..settings.resolved import Resolved, resolve
from .trainer import build_trainer


@dataclass
class Experiment:
    """One run while it is trained: its configuration, processes, data and trainer."""

    config: Config
    processes: Processes
    progress: Progress
    choices: Resolved
    """Precision and compile as resolved from `auto`."""
    data: OpenedData
    trainer: Trainer

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.out)

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.trainer.learner.model

    def say(self, text: str) -> None:
        """Print a line, in the first process only."""
        if self.processes.is_first:
            self.progress.say(text)


def assemble(
    config: Config, processes: Processes, progress: Progress, check: Callable[[], None] = lambda: None
) -> Experiment:
    """Open the data, fit choppers and tasks, build the model with its initial values, and the trainer at step 0; no
    checkpoint is read. Also writes `data.json` into the run's folder. `check` is called before the run's files are
    written: it raises OSError where the folder is another one now. Raises DataError, RunError or ValueError for what
    cannot be trained."""
    settings, folder, first = config.training, Path(config.out), processes.is_first
    say = progress.say if first else lambda text: None
    choices = processes.told(resolve(settings, config.model, folder, processes.device) if first else None)
    with orderly_end():
        data = open_data(config, processes, say)
    if first:
        check()
        write_json(folder / "data.json", {"dataset": data.name, **data.about}, within=folder)
    trainer = build_trainer(config, data, processes, progress, choices.precision, check)
    return Experiment(config, processes, progress, choices, data, trainer)


def start(experiment: Experiment) -> None:
    """Compile the model and wrap it in DDP, as resolved; to be called after weights were loaded."""
    experiment.trainer.learner.replica.start(experiment.choices.compile)
