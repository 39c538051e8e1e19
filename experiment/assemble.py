"""From a configuration to everything that training needs: fitted data, model, optimizer, evaluator, checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ..data.base import Dataset
from ..data.loader import Loader
from ..data.processes import Processes
from ..data.split import Split
from ..files.writing import write_bytes, write_json
from ..inference.evaluator import Evaluator
from ..inference.evaluators.metrics import Metrics
from ..inference.evaluators.samples import GeneratedSamples
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..training import checkpoints as checkpoint
from ..training.accounting import Costs
from ..training.checkpoints import Saver
from ..training.ema import Ema
from ..training.evaluation import Evaluations
from ..training.log import Log, Progress
from ..training.loop import Every, Learner, Trainer
from ..training.objective import Objective, Replica
from ..training.optimizers import freeze
from ..training.stop import StopRequest, orderly_end
from .build import Resolved, build_model, build_optimizer, choppers_and_tasks, open_split, resolve
from .run import Run, open_part
from .run_folder import fingerprints
from .settings.config import Config
from .settings.sections import Evaluation
from .transfer import take_assets


@dataclass(frozen=True)
class OpenedData:
    """The fitted choppers of a run's inputs, its fitted tasks, and the splits `train` and `val`."""

    dataset: Dataset
    choppers: dict[str, Chopper]
    tasks: dict[str, Task]
    splits: dict[str, Split]

    @property
    def contents(self) -> dict[str, str]:
        """The fingerprint of each split's content: a resumed run must find the same."""
        return {name: split.fingerprint for name, split in self.splits.items()}


def open_data(config: Config, processes: Processes, say: Callable[[str], None]) -> OpenedData:
    """Open the data of a configuration, and fit choppers and tasks on the training split. Raises DataError for data
    that cannot be trained on."""
    dataset = config.dataset()
    choppers, tasks = fit(config, dataset, processes, say)
    with processes.in_turn():
        splits = {name: open_split(config, dataset, name, choppers, tasks, say=say) for name in ("train", "val")}
    return OpenedData(dataset, choppers, tasks, splits)


def fit(
    config: Config, dataset: Dataset, processes: Processes, say: Callable[[str], None]
) -> tuple[dict[str, Chopper], dict[str, Task]]:
    """Choppers and tasks by name. The first process fits them, or takes them from the run that `from:` names, and saves
    them in `RUN/assets`; the others receive these files, whether or not they share its disk. A run that has a
    checkpoint is not fitted again. Raises DataError for data that cannot be fitted, and for a file that is missing."""
    assets, door = Path(config.out) / "assets", partial(open_part, trust=config.nested)
    if processes.is_first:
        if config.from_run:
            take_assets(config, Path(config.from_run), assets)
        trained = checkpoint.steps(Path(config.out))
        made = choppers_and_tasks(config, assets, door, None if trained else dataset, say)
        processes.told({file.relative_to(assets): file.read_bytes() for file in assets.rglob("*") if file.is_file()})
        return made
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.told(None).items():
            write_bytes(Path(folder) / name, content)
        return choppers_and_tasks(config, Path(folder), door)


def open_untrained(config: Config) -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """Choppers, tasks and the validation split of a configuration, for inspection without a run: fitted now; nothing of
    it is kept. Raises DataError for data that cannot be read."""
    dataset, door = config.dataset(), partial(open_part, trust=config.nested)
    with tempfile.TemporaryDirectory() as folder:
        choppers, tasks = choppers_and_tasks(config, Path(folder), door, dataset)
    return choppers, tasks, open_split(config, dataset, "val", choppers, tasks)


def build_learner(config: Config, data: OpenedData, processes: Processes, precision: str) -> Learner:
    """The model with its initial values on this process's device, with optimizer, schedule and averaged weights.
    `precision`: float32 or bfloat16."""
    settings = config.training
    torch.manual_seed(settings.seed)
    model = build_model(config, data.choppers, data.tasks).to(processes.device)
    replica = Replica(Objective(model, data.tasks, precision, settings.mixup), processes)
    freeze(model, settings.freeze)
    return Learner(
        replica=replica, optimizer=build_optimizer(settings, model), schedule=settings.schedule(settings.steps),
        averages=Ema(model, settings.ema) if settings.ema else None, clip=settings.clip, seed=settings.seed,
        processes=processes,
    )  # fmt: skip


def build_loader(config: Config, data: OpenedData, processes: Processes) -> Loader:
    """The loader of the training split, one step at a time; with mixup, neighbouring pairs of samples stay together."""
    settings = config.training
    return Loader(
        data.splits["train"], processes, seed=settings.seed, steps=settings.steps,
        rows_per_micro_batch=settings.rows_per_micro_batch, together=2 if settings.mixup else 1,
    )  # fmt: skip


def build_evaluators(settings: Evaluation) -> dict[str, Evaluator]:
    """The evaluators of a run by name, in the order in which they run: metrics, those of the YAML, samples."""
    return {
        "metrics": Metrics(generated=settings.generated),
        **{name: part() for name, part in settings.also.items()},
        "samples": GeneratedSamples(tokens=settings.sample_tokens, prompt=settings.prompt),
    }


def build_evaluation(
    config: Config, data: OpenedData, processes: Processes, objective: Objective, say: Callable[[str], None]
) -> Evaluations:
    """The evaluations of a run."""
    evaluators = build_evaluators(config.evaluation)

    def trained(step: int) -> Run:
        return Run(folder=Path(config.out), config=config, step=step, model=objective.model, tasks=data.tasks,
                   choppers=data.choppers, precision=objective.precision, processes=processes, opened=data.splits,
                   source=data.dataset)  # fmt: skip

    return Evaluations(objective=objective, splits=data.splits, processes=processes, say=say, trained=trained,
                      evaluators=list(evaluators.values()))  # fmt: skip


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


def build_trainer(
    config: Config, data: OpenedData, processes: Processes, progress: Progress, precision: str,
    check: Callable[[], None],
) -> Trainer:  # fmt: skip
    """The trainer at step 0. `precision`: float32 or bfloat16. `check`: see `Saver`."""
    learner = build_learner(config, data, processes, precision)
    every = Every(config.logging.every, config.evaluation.every, config.checkpoints.every)
    log = Log(progress, processes, Costs(learner.model).flops)
    say = progress.say if processes.is_first else lambda text: None
    return Trainer(
        learner=learner, loader=build_loader(config, data, processes),
        evaluation=build_evaluation(config, data, processes, learner.replica.objective, say),
        saver=build_saver(config, data, processes.is_first, check), log=log, stop=StopRequest(),
        steps=config.training.steps, every=every,
    )  # fmt: skip


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
        write_json(folder / "data.json", {"dataset": data.dataset.name, **data.dataset.about()}, within=folder)
    trainer = build_trainer(config, data, processes, progress, choices.precision, check)
    return Experiment(config, processes, progress, choices, data, trainer)


def start(experiment: Experiment) -> None:
    """Compile the model and wrap it in DDP, as resolved; to be called after weights were loaded."""
    experiment.trainer.learner.replica.start(experiment.choices.compile)
