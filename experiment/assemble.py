"""From a configuration to all that is trained: data opened and fitted, the model, what changes it, what watches it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.base import Dataset
from ..data.loader import Loader
from ..data.processes import Processes
from ..data.split import Split
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..tokenizers.files.writing import write_json
from ..training.accounting import Costs
from ..training.checkpoints import files as checkpoint
from ..training.checkpoints.saver import Saver
from ..training.ema import Ema
from ..training.evaluator import Evaluator
from ..training.loop import Every, Learner, Trainer
from ..training.objective import Objective
from ..training.optimizers import freeze
from ..training.parallel import parallel
from ..training.record.log import Log
from ..training.record.progress import Progress
from ..training.stop import StopRequest, orderly_end
from .build import build_choppers, build_model, build_optimizer, build_tasks, open_split
from .folder.reading import fingerprints
from .folder.transfer import take_assets
from .run import Run
from .settings.config import Config
from .settings.resolved import Resolved, resolve
from .views.text_sample import sample_of


@dataclass
class Experiment:
    """One run while it is trained: what was opened and built for it."""

    config: Config
    processes: Processes
    progress: Progress
    choices: Resolved
    """What `auto` stands for here: precision, compile."""
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]
    trainer: Trainer
    about: Mapping[str, Any]
    """What the data set says of itself."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.config.out)

    @property
    def model(self):
        """The model that is trained."""
        return self.trainer.learner.objective.model

    def say(self, text: str) -> None:
        """Tell the user, once."""
        if self.processes.is_first:
            self.progress.say(text)


def assemble(config: Config, processes: Processes, progress: Progress) -> Experiment:
    """Open and build everything; nothing is trained yet, and no checkpoint is read. Raises DataError, RunError or
    ValueError for what cannot be trained."""
    settings, folder, first = config.training, Path(config.out), processes.is_first

    def say(text: str) -> None:
        if first:
            progress.say(text)

    choices = processes.told(resolve(settings, config.model, folder, processes.device) if first else None)
    with orderly_end():
        dataset = config.data.dataset()
        choppers, tasks = fitted(config, dataset, processes)
        for task in tasks.values():
            task.say = say
            for note in task.notes:
                say(note)
        with processes.in_turn():
            splits = {name: open_split(config, dataset, name, choppers, tasks, say=say) for name in ("train", "val")}
    about = dataset.about() if splits["train"].unit != "samples" else {}
    if first:
        write_json(folder / "data.json", {"dataset": dataset.name, **about})
    torch.manual_seed(settings.seed)
    model = build_model(config, choppers, tasks).to(processes.device)
    objective = Objective(model, tasks, choices.precision, settings.mixup)
    freeze(model, settings.freeze)
    optimizer = build_optimizer(settings, model)
    learner = Learner(
        objective, objective, optimizer, settings.schedule(settings.steps),
        Ema(model, settings.ema) if settings.ema else None, settings.clip, settings.seed, processes,
    )  # fmt: skip
    loader = Loader(
        splits["train"], processes, seed=settings.seed, steps=settings.steps,
        rows_per_micro_batch=settings.rows_per_micro_batch, together=2 if settings.mixup else 1,
    )  # fmt: skip
    saver = Saver(
        folder=folder, writes=first, every=config.checkpoints.every, steps=settings.steps, keep=config.checkpoints.keep,
        average=config.checkpoints.average, best=config.checkpoints.best,
        known={"vocabularies": fingerprints(choppers), "data": contents(splits), "torch": torch.__version__,
               "threads": torch.get_num_threads()},
    )  # fmt: skip
    evaluator = Evaluator(
        objective=objective,
        splits=splits,
        processes=processes,
        rows=config.evaluation.rows,
        generated=config.evaluation.generated,
        sample=lambda: sample_of(
            Run(folder=folder, config=config, step=trainer.step, model=objective.model, tasks=tasks, choppers=choppers),
            splits["val"],
        ),
    )
    every = Every(config.logging.every, config.evaluation.every, config.checkpoints.every)
    log = Log(progress, processes, Costs(model).flops)
    trainer = Trainer(learner, loader, evaluator, saver, log, StopRequest(), settings.steps, every)
    return Experiment(config, processes, progress, choices, choppers, tasks, splits, trainer, about)


def start(experiment: Experiment) -> None:
    """Put the objective into the form in which it is trained: compiled, under DDP. After weights were loaded."""
    learner = experiment.trainer.learner
    learner.forward = parallel(learner.objective, experiment.processes, experiment.choices.compile)


def contents(splits: Mapping[str, Split]) -> dict[str, str]:
    """What identifies the data that are read."""
    return {name: split.fingerprint for name, split in splits.items()}


def fitted(config: Config, dataset: Dataset, processes: Processes) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks. The first process learns what is to be learned of the data; the others are told,
    whether or not they share a disk with it."""
    assets = Path(config.out) / "assets"
    if processes.is_first:
        if config.from_run and not checkpoint.steps(Path(config.out)):
            take_assets(config, Path(config.from_run), assets)
        choppers = build_choppers(config, assets, dataset)
        tasks = build_tasks(config, choppers, assets, dataset)
        processes.told({file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()})
        return choppers, tasks
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.told(None).items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_bytes(content)
        choppers = build_choppers(config, Path(folder))
        return choppers, build_tasks(config, choppers, Path(folder))
