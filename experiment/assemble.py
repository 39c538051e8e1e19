"""Building what a training needs from a configuration: the data, the model and the trainer, and what it saves."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..data.base import Dataset
from ..data.feed import Thread, Workers, obstacle
from ..data.fingerprint import VERSION as FINGERPRINT_VERSION
from ..data.loader import Loader
from ..data.processes import Processes
from ..data.rollouts import rolled_out
from ..data.split import Split
from ..files.signals import orderly_end
from ..files.writing import write_bytes, write_json
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper, RunPart
from ..training import checkpoints as checkpoint
from ..training.accounting import Costs
from ..training.adapters import adapt
from ..training.checkpoints import Saver
from ..training.ema import Ema
from ..training.evaluation import Evaluations, evaluation_interval
from ..training.log import Log
from ..training.loop import Every, Learner, Trainer
from ..training.objective import Objective, Replica
from ..training.optimizers import freeze, select
from ..training.progress import Progress, RemainingTime
from ..training.rollouts import Rollouts
from ..training.schedules import checked
from ..training.stop import StopRequest
from .build import Resolved, build_evaluators, build_model, build_optimizer, choppers_and_tasks, open_split, resolve
from .read_ahead import CpuPlan, number_of_workers, stores_results
from .run import Run, open_part
from .run_folder import fingerprints
from .run_names import folder_of_run
from .run_page import RunPage
from .settings.config import Config
from .transfer import take_assets


@dataclass(frozen=True)
class OpenedData:
    """The data of a run: the data set, the fitted choppers of all inputs, the fitted tasks, and the splits `train` and
    `val`."""

    dataset: Dataset
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]

    @property
    def contents(self) -> dict[str, str]:
        """The fingerprint of the content of each split, by name. The fingerprints must not change until a run
        resumes."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def open_data(config: Config, processes: Processes, say: Callable[[str], None]) -> OpenedData:
    """Open the data set of a configuration, fit choppers and tasks on the training split, and open the splits. Raises
    DataError if the data cannot be used for training."""
    dataset = config.dataset()
    choppers, tasks = fitted(config, dataset, processes, say)
    with processes.in_turn():
        splits = {"train": open_split(config, dataset, "train", choppers, tasks, say=say)}
        splits["train"].check_training()
        if dataset.rule:
            steps = None if config.training.minutes or config.training.epochs else config.training.steps
            splits["train"] = rolled_out(splits["train"], dataset.rule, steps)
        splits["val"] = open_split(config, dataset, "val", choppers, tasks, say=say)
    return OpenedData(dataset, choppers, tasks, splits)


def fitted(
    config: Config, dataset: Dataset, processes: Processes, say: Callable[[str], None]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Returns (choppers, tasks), each by name. The first process fits them, or copies what the run of `from:` has
    fitted, and saves them in `RUN/assets`. It sends these files to the other processes, which therefore need no access
    to its disk. In a run with a checkpoint nothing is fitted. Raises DataError if choppers or tasks cannot be fitted on
    the data, or if a file is missing."""
    assets, open_run = Path(config.out) / "assets", partial(open_part, trust=config.nested)
    if processes.is_first:
        if config.from_run:
            take_assets(config, folder_of_run(config.from_run), assets)
        trained = checkpoint.steps(Path(config.out))
        parts = choppers_and_tasks(config, assets, open_run, None if trained else dataset, say)
        processes.broadcast(
            {file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()}
        )
        return parts
    return received_parts(config, processes, open_run)


def received_parts(
    config: Config, processes: Processes, open_run: Callable[..., RunPart]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Returns the choppers and tasks that the first process sends."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.broadcast(None).items():
            write_bytes(Path(folder) / name, content)
        return choppers_and_tasks(config, Path(folder), open_run)


def build_learner(config: Config, data: OpenedData, processes: Processes, precision: str) -> Learner:
    """Returns the learner: the model with its initial values on this process's device, the optimizer, the schedule and
    the averaged weights. `precision`: `float32` or `bfloat16`."""
    settings = config.training
    torch.manual_seed(settings.seed)
    model, train_only = build_model(config, data.choppers, data.tasks), settings.train_only
    if settings.adapters:
        adapt(model, sorted(select(model, settings.adapters.on, "adapters.on")), settings.adapters)
        train_only = [*train_only, "adapters"]
    objective = Objective(model.to(processes.device), data.tasks, precision, settings.mixup, bool(settings.adapters))
    if settings.freeze or train_only:
        freeze(model, settings.freeze, train_only)
    return Learner(
        replica=Replica(objective, processes), optimizer=build_optimizer(settings, model),
        schedule=checked(settings.schedule(settings.steps)),
        averages=Ema(model, settings.ema) if settings.ema else None, clip=settings.clip, seed=settings.seed,
        processes=processes,
    )  # fmt: skip


def build_loader(
    config: Config, data: OpenedData, processes: Processes, objective: Objective, say: Callable[[str], None]
) -> Loader:
    """Returns the loader that reads the training split, one step at a time. With mixup, neighbouring pairs of samples
    stay in one process. The feed of the loader also reads the other splits, for evaluations."""
    settings, device = config.training, processes.device
    workers = number_of_workers(config.data.workers, data.splits["train"], settings.seed, settings.steps)
    plan = CpuPlan(objective.model.without_weights(), objective.precision) if workers and device.type == "cpu" else None
    if workers and config.data.workers == "auto" and (reason := obstacle(data.splits, plan)):
        say(f"data.workers: auto uses no worker processes, because {reason}")
        workers = 0
    if workers:
        feed = Workers(data.splits, workers, plan, pinned=device.type == "cuda", say=say)
    else:
        feed = Thread(data.splits, threads=bool(stores_results(data.splits["train"])))
    for split in data.splits.values():
        split.read_by(feed)
    return Loader(
        data.splits["train"], processes, seed=settings.seed, steps=settings.steps,
        rows_per_micro_batch=settings.rows_per_micro_batch, together=2 if settings.mixup else 1, feed=feed,
    )  # fmt: skip


def build_evaluation(
    config: Config, data: OpenedData, processes: Processes, objective: Objective, say: Callable[[str], None]
) -> Evaluations:
    """Returns the object that runs the evaluators of a run."""
    evaluators = build_evaluators(config.evaluation)
    if config.evaluation.report:
        evaluators["report"] = RunPage(generated=config.evaluation.generated)

    def trained(step: int) -> Run:
        return Run(folder=Path(config.out), config=config, step=step, model=objective.model, tasks=data.tasks,
                   choppers=data.choppers, precision=objective.precision, processes=processes, opened=data.splits,
                   source=data.dataset)  # fmt: skip

    return Evaluations(objective=objective, splits=data.splits, processes=processes, say=say, trained=trained,
                      evaluators=list(evaluators.values()))  # fmt: skip


def build_saver(config: Config, data: OpenedData, writes: bool, check: Callable[[], None]) -> Saver:
    """Returns the object that saves checkpoints into the run's folder. `writes`: whether this process writes the files;
    `check`: see `Saver`."""
    settings = config.checkpoints
    return Saver(
        folder=Path(config.out), writes=writes, every=settings.every, steps=config.training.steps, keep=settings.keep,
        average=settings.average, best=settings.best, check=check,
        known={"vocabularies": fingerprints(data.choppers), "data": data.contents, "torch": torch.__version__,
               "fingerprint_version": FINGERPRINT_VERSION, "threads": torch.get_num_threads()},
    )  # fmt: skip


def build_trainer(
    config: Config, data: OpenedData, processes: Processes, progress: Progress, precision: str,
    check: Callable[[], None],
) -> Trainer:  # fmt: skip
    """Returns the trainer at step 0. `precision`: `float32` or `bfloat16`; `check`: see `Saver`."""
    learner = build_learner(config, data, processes, precision)
    steps, evaluate = config.training.steps, config.evaluation.every or evaluation_interval(config.training.steps)
    every = Every(config.logging.every, evaluate, config.checkpoints.every)
    log = Log(progress, processes, Costs(learner.model).flops, RemainingTime(steps, evaluate))
    say = progress.say if processes.is_first else lambda text: None
    loader = build_loader(config, data, processes, learner.replica.objective, say)
    evaluation = build_evaluation(config, data, processes, learner.replica.objective, say)
    return Trainer(
        learner=learner, loader=loader, evaluation=evaluation,
        rollouts=Rollouts(loader, evaluation, processes, learner.seed) if data.dataset.rule else None,
        saver=build_saver(config, data, processes.is_first, check), log=log, stop=StopRequest(),
        steps=steps, every=every, early_stop=config.training.stop,
    )  # fmt: skip


@dataclass
class Experiment:
    """A run during training: its configuration, processes, data and trainer."""

    config: Config
    processes: Processes
    progress: Progress
    choices: Resolved
    """The precision of the run, and whether its model is compiled."""
    data: OpenedData
    trainer: Trainer
    accepts_data: bool = False
    """Whether a run is continued although the fingerprints of its data have an older version (`--accept-data`)."""

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.config.out)

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.trainer.learner.model

    def say(self, text: str) -> None:
        """Print a line. Only the first process prints."""
        if self.processes.is_first:
            self.progress.say(text)


def assemble(
    config: Config, processes: Processes, progress: Progress, check: Callable[[], None] = lambda: None
) -> Experiment:
    """Open the data, fit choppers and tasks, and build the model with its initial values and the trainer at step 0. No
    checkpoint is read. Also writes `data.json` into the run's folder. `check` is called before files are written; it
    must raise OSError if the folder is no longer the run's folder. Raises DataError, RunError or ValueError if the
    configuration cannot be trained."""
    settings, folder, first = config.training, Path(config.out), processes.is_first
    say = progress.say if first else lambda text: None
    choices = processes.broadcast(resolve(settings, config.model, folder, processes.device) if first else None)
    with orderly_end():
        data = open_data(config, processes, say)
    if first:
        check()
        write_json(folder / "data.json", {"dataset": data.dataset.name, **data.dataset.about()}, within=folder)
    trainer = build_trainer(config, data, processes, progress, choices.precision, check)
    return Experiment(config, processes, progress, choices, data, trainer)


def start(experiment: Experiment) -> None:
    """Compile the model (if `choices.compile`) and wrap it in DDP for several processes. Must be called after the
    weights are loaded."""
    experiment.trainer.learner.replica.start(experiment.choices.compile)
