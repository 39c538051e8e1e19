"""The training of one run, from locking the folder of the run to writing `summary.json`."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field

from ..data.base import Dataset
from ..data.feed import Thread, Workers
from ..data.fingerprint import VERSION as FINGERPRINT_VERSION
from ..data.loader import Loader
from ..data.processes import Processes
from ..data.split import Split
from ..files.errors import RunError
from ..files.printing import duration, figure_text
from ..files.reading import DataError
from ..files.records import Record, read_record
from ..files.signals import orderly_end
from ..files.writing import write_bytes, write_json
from ..inference.evaluator import Evaluator
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..training import checkpoints as checkpoint
from ..training.accounting import Costs
from ..training.checkpoints import CheckpointError, NotFiniteError, Saver, State
from ..training.early_stop import still_stops
from ..training.ema import Ema
from ..training.evaluation import Evaluations, evaluation_interval, result_of
from ..training.log import Log, MetricsFile
from ..training.logger import Loggers
from ..training.loggers.tensorboard import TensorBoard
from ..training.loop import Every, Learner, Trainer
from ..training.objective import Objective, Replica
from ..training.optimizers import freeze
from ..training.progress import Progress, RemainingTime
from ..training.schedules import checked
from ..training.stop import StopRequest
from .build import Resolved, build_evaluators, build_model, build_optimizer, choppers_and_tasks, open_split, resolve
from .changes import moved_back, note_change, read_changes, with_changes
from .preflight import (
    check_balance,
    check_best,
    check_leaks,
    check_mixup,
    data_lines,
    lines_about_inputs,
    lines_about_unused_inputs,
)
from .read_ahead import CpuPlan, number_of_workers, stores_results
from .run import Run, load_run, open_part
from .run_folder import (
    check_is_free,
    check_links,
    fingerprints,
    folder_of_run,
    load_weights,
    prepare_run,
    run_lock,
    summary_of,
    valid_step,
)
from .run_sums import store_sums
from .settings.config import Config
from .transfer import take_assets, take_weights


def train(
    config: Config, requested: Collection[str] = (), accept_data: bool = False, progress: bool = True
) -> tuple[dict[str, float], int]:
    """Train one run, or continue it. `requested` are the keys of settings that may differ from those of the run (see
    `changes.py`). `accept_data`: continue a run although an older version of chopmix computed the fingerprints of its
    data by other rules. `progress`: print the progress lines. Returns (summary, status): the run's summary (`step`,
    `seconds`, metrics) and the exit status, 0, or 130 (SIGINT) or 143 (SIGTERM) if the run was stopped by a signal. A
    finished run is not trained again.

    During training the run's folder is locked: a second process that tries to train in this folder raises LockedError
    and changes nothing. Raises RunError if the folder belongs to another configuration, OSError if the folder or its
    lock is deleted or replaced during training, ValueError or ConfigError for a configuration or data that cannot be
    used."""
    processes = Processes.start(config.training.device)
    shown, folder = Progress(config.training.steps or 0, shown=progress), Path(config.out)
    if processes.is_first:
        if config.run_folder:
            check_links(config.run_folder)
        check_is_free(folder)
    with run_lock(folder) if processes.is_first else nullcontext(lambda: None) as check:
        if processes.is_first:
            prepare_run(config, folder, partial(note_change, requested=requested))
            moved_back(folder)
        if config.training.steps is None:
            config = with_steps(config, processes, shown)
        steps, stop, best = config.training.steps, config.training.stop, config.checkpoints.best
        summary = processes.broadcast(summary_of(folder, steps, stop, best) if processes.is_first else None)
        if summary is not None:
            if processes.is_first:
                shown.say(finished_line(folder, summary, config))
            return summary, 0
        experiment = assemble(config, processes, shown, check)
        experiment.accepts_data = accept_data
        return summarize(experiment, fit(experiment))


def finished_line(folder: Path, summary: Mapping[str, Any], config: Config) -> str:
    """Returns a sentence that a run is finished, for a repeated command."""
    metric = config.checkpoints.best or "val/loss"
    value = f"; {metric} {summary[metric]:.4f}" if metric in summary else ""
    length = f" in {duration(summary['seconds'])}" if "seconds" in summary else ""
    line = f"{folder} is finished: {summary['step']:,} steps{length}{value}"
    if summary["step"] == config.training.steps:
        return line
    return f"{line}. It stopped early; to continue it, use training.stop=null or a larger training.stop.patience"


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
        splits["val"] = open_split(config, dataset, "val", choppers, tasks, say=say)
    changes = processes.broadcast(read_changes(Path(config.out)) if processes.is_first else None)
    splits["train"] = with_changes(splits["train"], changes)
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
    with tempfile.TemporaryDirectory() as folder:
        for name, content in processes.broadcast(None).items():
            write_bytes(Path(folder) / name, content)
        return choppers_and_tasks(config, Path(folder), open_run)


def build_learner(config: Config, data: OpenedData, processes: Processes, precision: str) -> Learner:
    """Returns the learner: the model with its initial values on this process's device, the optimizer, the schedule and
    the averaged weights. `precision`: `float32` or `bfloat16`."""
    settings = config.training
    torch.manual_seed(settings.seed)
    model = build_model(config, data.choppers, data.tasks).to(processes.device)
    replica = Replica(Objective(model, data.tasks, precision, settings.mixup), processes)
    freeze(model, settings.freeze, settings.train_only)
    return Learner(
        replica=replica, optimizer=build_optimizer(settings, model),
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
    if workers:
        plan = CpuPlan(objective.model.without_weights(), objective.precision) if device.type == "cpu" else None
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
    return Trainer(
        learner=learner, loader=build_loader(config, data, processes, learner.replica.objective, say),
        evaluation=build_evaluation(config, data, processes, learner.replica.objective, say),
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


def fit(experiment: Experiment) -> dict[str, Any]:
    """Train from the newest undamaged checkpoint, or from step 0, to the last step or until a signal stops the run.
    Returns the metrics of the summary (see `end_training`), or those of the last evaluation. If the loss or the weights
    are not finite, the run returns once to its newest undamaged checkpoint; the second time RunError is raised."""
    state, trainer = resume(experiment), experiment.trainer
    preflight(experiment)
    introduce(experiment)
    start(experiment)
    with (
        trainer.loader,
        trainer.stop,
    ):  # the loader's threads always end here, even if Ctrl-C arrived during their start
        trainer.loader.feed.start()
        while True:
            try:
                with metrics_file(experiment, state) as trainer.log.record:
                    metrics = trainer.fit()
                    return metrics | end_training(experiment) if trainer.step == trainer.steps else metrics
            except NotFiniteError as error:
                state = roll_back(experiment, error)
            except (KeyboardInterrupt, SystemExit):
                if trainer.step == trainer.steps:
                    experiment.say(f"stopped {experiment.folder} after its last step; the same command finishes it")
                raise


def preflight(experiment: Experiment) -> None:
    """Check, before the first step: training.mixup does not mix samples that the loss of a task compares;
    `checkpoints.best` is an existing metric; the inputs fit the data; each evaluator can evaluate the model; and in the
    first batch no slot that predicts a target can read this target. Raises the error of the first check that fails,
    usually a ValueError."""
    config, data, evaluation = experiment.config, experiment.data, experiment.trainer.evaluation
    settings, train = config.training, experiment.data.splits["train"]
    check_mixup(data.tasks, settings.mixup is not None)
    names = {"checkpoints.best": config.checkpoints.best} if config.checkpoints.best else {}
    names |= {"training.stop.metric": settings.stop.metric} if settings.stop and settings.stop.metric else {}
    for key, name in names.items():
        check_best(name, data.tasks, config.evaluation.generated, evaluation.evaluators, corpus=train.samples is None,
                   key=key)  # fmt: skip
    check_balance(config.data.balance, data.tasks)
    data.dataset.check(config.wiring)
    for evaluator in evaluation.evaluators:
        evaluator.check(evaluation.trained(0), experiment.say)
    for line in check_leaks(experiment.model, train, settings.seed, experiment.processes):
        experiment.say(line)


def introduce(experiment: Experiment) -> None:
    """Print the folder, the numbers of all and of trained parameters, the device and the precision, and, at step 0, the
    lines of `about_inputs`. Called before the first step, since this step can take a long time."""
    processes, choices = experiment.processes, experiment.choices
    count = sum(parameter.numel() for parameter in experiment.model.parameters())
    trained = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    share = f", of which {trained:,} are trained," if trained < count else ""
    compiled = ", compiled" if choices.compile else ""
    in_processes = f" in {processes.world_size} processes" if processes.world_size > 1 else ""
    hardware = f"{processes.device.type}{in_processes} in {choices.precision}{compiled}"
    experiment.say(f"{experiment.folder}: {count:,} parameters{share} on {hardware}")
    for line in about_inputs(experiment) if experiment.trainer.step == 0 and processes.is_first else ():
        experiment.say(line)


def about_inputs(experiment: Experiment) -> list[str]:
    """Returns lines about the data of a configuration: a summary of each input, the share of samples from which each
    input is dropped, the inputs that read the target column of a task, and the inputs on which no prediction
    depends."""
    config, data, split = experiment.config, experiment.data, experiment.data.splits["train"]
    lines = data_lines(data.dataset.name, data.splits, config.wiring.columns, data.tasks, config.data.balance)
    lines += data.dataset.notices()
    lines += lines_about_inputs(split, data.tasks, config.wiring.columns, config.wiring.encoded)
    return lines + lines_about_unused_inputs(experiment.model, split, list(data.choppers), config.training.seed)


def resume(experiment: Experiment) -> State | None:
    """Load the newest undamaged checkpoint and return its state. If there is no such checkpoint, returns None; the
    weights are then copied from the run of `from:`, or, without `from:`, keep their initial values. Raises RunError if
    the data changed since the checkpoint was written, or if no weights of `from:` fit."""
    if experiment.choices.note:
        experiment.say(experiment.choices.note)
    if (step := newest(experiment)) is not None:
        return continued(experiment, step)
    if experiment.config.from_run:
        copy_weights(experiment)
    return None


def continued(experiment: Experiment, step: int) -> State:
    """Load the checkpoint of a step, print the changes of the run, and return the state."""
    state = load(experiment, step)
    experiment.say(f"resumed {experiment.folder} at step {step:,}")
    for change in read_changes(experiment.folder) if experiment.processes.is_first else ():
        for line in change.lines():
            experiment.say(line)
    return state


def copy_weights(experiment: Experiment) -> None:
    """Copy the weights of the run of `from:`. Raises RunError if none of them fit."""
    processes, model, ema = experiment.processes, experiment.model, experiment.config.training.ema
    if processes.is_first:
        experiment.say(take_weights(model, experiment.config))
    tensors = model.state_dict() if processes.is_first else {}
    model.load_state_dict(processes.broadcast_tensors({name: value.cpu() for name, value in tensors.items()}))
    if ema:
        experiment.trainer.learner.averages = Ema(model, ema)


def newest(experiment: Experiment) -> int | None:
    """Returns the step of the newest undamaged checkpoint, or None if there is no such checkpoint. The result is equal
    in all processes."""
    first = experiment.processes.is_first
    return experiment.processes.broadcast(checkpoint.newest_valid(experiment.folder, experiment.say) if first else None)


def load(experiment: Experiment, step: int) -> State:
    """Load model, optimizer and averaged weights from the checkpoint of a step, and return its state. The first process
    reads the files and sends the tensors to the other processes. Raises RunError if the data or a vocabulary changed
    since the checkpoint was written."""
    processes, trainer, folder = experiment.processes, experiment.trainer, experiment.folder
    learner, state = trainer.learner, None
    if processes.is_first:
        state = load_weights(experiment.model, folder, step, experiment.data.choppers, averaged=False)
    state = processes.broadcast(state)
    parts = {
        part: processes.broadcast_tensors(checkpoint.read_part(folder, step, part) if processes.is_first else None)
        for part in (("model", "optimizer", "ema") if processes.world_size > 1 else ("optimizer", "ema"))
    }
    if not processes.is_first:
        experiment.model.load_state_dict(parts["model"])
    check_data(experiment, step, state)
    learner.optimizer.load(parts["optimizer"])
    restore_state(experiment, step, state)
    if trainer.averaged:
        learner.averages = Ema(experiment.model, 0.0)
    if learner.averages and parts["ema"]:
        learner.averages.load(parts["ema"])
    return state


def check_data(experiment: Experiment, step: int, state: State) -> None:
    """Raises RunError if the data are not those of the checkpoint of a step, or if that is unknown because an older
    version of chopmix wrote it, unless the user accepts the data."""
    folder, contents = experiment.folder, experiment.data.contents
    if state.data == contents:
        return
    changed = ", ".join(name for name, source in contents.items() if state.data.get(name) != source)
    if state.fingerprint_version >= FINGERPRINT_VERSION:
        raise RunError(
            f"{folder}: the data ({changed}) changed since step {step}; to train its weights on the new data, start a "
            f"run with from={folder} out=OTHER"
        )
    if not experiment.accepts_data:
        raise RunError(
            f"{folder}: whether the data ({changed}) changed since step {step} is unknown, because an older version of "
            "chopmix computed their fingerprints by other rules; if they are the same, continue with --accept-data"
        )
    experiment.say(f"the data ({changed}) are accepted as those of step {step:,}")


def restore_state(experiment: Experiment, step: int, state: State) -> None:
    """Set the trainer, its log and its loader to the step and state of a checkpoint."""
    trainer = experiment.trainer
    trainer.step, trainer.evaluated, trainer.patience = step, state.evaluated, state.patience
    if state.stopped_early and still_stops(state.patience, trainer.early_stop, trainer.saver.best):
        trainer.end_at_current_step()
    at_end = step == trainer.steps
    trainer.best = state.best if state.best and state.best.metric == trainer.saver.best else None
    trainer.finished, trainer.averaged = state.finished and at_end, state.averaged and at_end
    trainer.log.resume(state.seconds, state.unreported)
    trainer.loader.skipped = list(state.skipped)
    trainer.loader.samples, trainer.loader.inputs = 0, Counter()
    if experiment.processes.is_first:
        trainer.loader.samples, trainer.loader.inputs = state.samples, Counter(state.inputs)
    trainer.loader.forget()
    # int() rejects longer numbers.
    bad_samples = {int(n): reason for n, reason in state.bad.items() if n.isdecimal() and len(n) < 16}
    experiment.data.splits["train"].skipped.bad.remember(bad_samples)
    if experiment.processes.is_first:
        trainer.saver.point_to_best(trainer.best)


def roll_back(experiment: Experiment, error: NotFiniteError) -> State:
    """Return to the newest undamaged checkpoint, and skip the batches between this checkpoint and the failure. First
    the skipped batches are written into the checkpoint's state, as `skipped`: [(step, number of batches)]. A later
    resume therefore skips the same batches. Raises RunError if the run already returned to a checkpoint once, or if
    there is no checkpoint."""
    failed, processes = experiment.trainer.step, experiment.processes
    processes.wait()
    step = newest(experiment)
    advice = "try a smaller training.learning_rate, more warmup, or precision float32"
    if step is None or experiment.trainer.loader.skipped:
        none, again = "there is no checkpoint to go back to", "it went back once before and does not do so again"
        raise RunError(f"{error} near step {failed:,}; {none if step is None else again}; {advice}")
    if processes.is_first:
        state = checkpoint.read_state(experiment.folder, step)
        fields = state.model_dump(exclude={"files", "step", "skipped"})
        checkpoint.add(experiment.folder, step, {}, {**fields, "skipped": [(step, failed - step)]})
    processes.wait()
    state = load(experiment, step)
    experiment.say(
        f"{error} near step {failed:,}: back to the checkpoint of step {step:,}, and on without the batches {step:,} "
        f"to {failed - 1:,}. If it happens again, {advice}"
    )
    return state


def metrics_file(experiment: Experiment, state: State | None) -> MetricsFile:
    """Returns the open file `metrics.jsonl`, which is continued from the run's step. Lines of later steps are
    removed."""
    return MetricsFile(
        experiment.folder, step=experiment.trainer.step, lines=state.records if state else (),
        loggers=open_loggers(experiment), writes=experiment.processes.is_first,
        check=experiment.trainer.saver.check,
    )  # fmt: skip


def open_loggers(experiment: Experiment) -> Loggers | None:
    """Returns the loggers of the run, opened at its current step. In all processes except the first, returns None.
    Raises DataError if a logger connects to an address that the configuration must not use."""
    if not experiment.processes.is_first:
        return None
    config, logging = experiment.config, experiment.config.logging
    loggers = {"tensorboard": TensorBoard()} if logging.tensorboard else {}
    for name, part in logging.also.items():
        try:
            loggers[name] = part()
        except TypeError as error:
            raise RunError(
                f"logging.also.{name}: {error}; the keys of a logger are its keyword-only parameters: "
                "def __init__(self, *, key=...)"
            ) from error
    for logger in loggers.values():
        for address in getattr(logger, "addresses", tuple)():
            config.trust.check_address(address)
    opened = Loggers(loggers, experiment.say)
    opened.call("open", experiment.folder, experiment.trainer.step, config.tree)
    return opened


def end_training(experiment: Experiment) -> dict[str, Any]:
    """Finish a run at its last step and return the metrics of its summary: those of the best checkpoint, which
    `predict` and `evaluate` load, and as `last` those of the last step. Averages the newest checkpoints (with
    `checkpoints.average`), evaluates, runs the evaluators of the end, and saves. Work that was done before the run was
    stopped is not repeated. The first Ctrl-C or SIGTERM ends the process."""
    trainer, config = experiment.trainer, experiment.config
    trainer.stop.steps_done()
    if config.checkpoints.average and not trainer.averaged:
        average_last(experiment)
    if trainer.evaluated < trainer.step:
        trainer.evaluate_saving_on_error()
    figures = {} if trainer.finished else evaluate_at_end(experiment)
    trainer.finished = True
    trainer.save()
    saved = [evaluator for evaluator in experiment.trainer.evaluation.evaluators if evaluator.when == "saved"]
    if saved and experiment.processes.is_first:
        evaluate_saved(experiment, saved)
    for split in experiment.data.splits.values():
        for line in split.skipped.everywhere(experiment.processes).lines():
            experiment.say(line)
    experiment.processes.wait()
    lines = [line for line in trainer.log.record.here if not any(name.startswith("train/") for name in line)]
    values = {name: value for line in lines for name, value in line.items() if name not in ("step", "seconds")}
    values = {name: value for name, value in values.items() if not name.startswith("data/")} | figures
    best = trainer.best.metrics if trainer.best else {}
    return values | best | {"last": {name: value for name, value in values.items() if name in best or not best}}


def average_last(experiment: Experiment) -> None:
    """Replace the averaged weights by the mean over the newest `checkpoints.average` checkpoints (Vaswani et al. 2017,
    arXiv:1706.03762, section 6.1). The mean is the result of the run. Therefore the previous best checkpoint is no
    longer the best, and the next evaluation determines the best."""
    trainer, processes, folder = experiment.trainer, experiment.processes, experiment.folder
    trainer.save()
    processes.wait()
    newest = processes.broadcast(trainer.saver.averaged_steps() if processes.is_first else None)
    mean: dict[str, torch.Tensor] = {}
    if processes.is_first:
        state_dicts = [checkpoint.read_part(folder, step, "model") for step in newest]
        mean = {name: mean_of([state_dict[name] for state_dict in state_dicts]) for name in state_dicts[0]}
    trainer.learner.averages = Ema(experiment.model, 0.0)
    trainer.learner.averages.load(processes.broadcast_tensors(mean if processes.is_first else None))
    experiment.say(f"averaged the weights of steps {', '.join(map(str, newest))}")
    trainer.best, trainer.evaluated, trainer.averaged = None, -1, True


def mean_of(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the mean of tensors of the same shape; the last tensor, bit for bit, if all are equal (frozen weights) or
    hold integers."""
    last = tensors[-1]
    is_constant = not last.is_floating_point() or all(torch.equal(tensor, last) for tensor in tensors)
    return last if is_constant else torch.stack(list(tensors)).mean(0)


def evaluate_at_end(experiment: Experiment) -> dict[str, float]:
    """Run the evaluators whose `when` is "end" with the best checkpoint, and log and print their results. Returns their
    metrics."""
    trainer = experiment.trainer
    if not any(evaluator.when == "end" for evaluator in trainer.evaluation.evaluators):
        return {}
    with weights_of_best(experiment) as step:
        report = trainer.evaluation.run(step, "end")
    trainer.log.show(report.tables, report.lines)
    trainer.log.write(trainer.step, dict(report.metrics))
    return dict(report.metrics)


@contextmanager
def weights_of_best(experiment: Experiment) -> Iterator[int]:
    """Returns a context in which the model has the weights of the best checkpoint, and which yields the step of this
    checkpoint. The first process reads the files and sends the weights to the other processes."""
    trainer, processes, folder, model = experiment.trainer, experiment.processes, experiment.folder, experiment.model
    best = trainer.best.step if trainer.best else trainer.step
    step = processes.broadcast(
        valid_step(folder, "best", experiment.say) if processes.is_first and best != trainer.step else best
    )
    if step == trainer.step:
        with trainer.learner.averaged():
            yield step
        return
    weights = {}
    if processes.is_first:
        weights = checkpoint.read_part(folder, step, "model") | checkpoint.read_part(folder, step, "ema")
    own = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(processes.broadcast_tensors(weights if processes.is_first else None))
    try:
        yield step
    finally:
        model.load_state_dict(own)


def evaluate_saved(experiment: Experiment, saved: Sequence[Evaluator]) -> None:
    """Run the evaluators whose `when` is "saved", which need the saved run, and print their results. With
    `evaluation.report`, also store the sums of the samples and write the page of the run."""
    config = experiment.config
    experiment.trainer.saver.check()
    run = load_run(experiment.folder, device=experiment.processes.device.type, trust=config.trust.modules,
                   remote=config.trust.hosts)  # fmt: skip
    for evaluator in saved:
        report = result_of(evaluator, run, experiment.say)
        experiment.trainer.log.show(report.tables, report.lines)
    if config.evaluation.report:
        store_sums(run, run.open("val", say=lambda text: None), config.evaluation.generated)
        write_page_of(run, experiment.say)


def write_page_of(run: Run, say: Callable[[str], None]) -> None:
    """Write `RUN/index.html`. A page that cannot be written does not end the training with an error."""
    from .run_page import write_run_page

    try:
        write_run_page(run, run.folder / "index.html")
        say(f"page: {run.folder / 'index.html'}")
    except (ValueError, OSError) as error:
        say(f"{run.folder / 'index.html'} is not written: {error}")


def summarize(experiment: Experiment, metrics: dict[str, float]) -> tuple[dict[str, Any], int]:
    """Print how the run ended. Write `summary.json` if the run reached its last step. Returns (summary, status): the
    summary (`step`, `seconds`, metrics) and the exit status, 0, or 128 + the signal that stopped the run. Raises
    OSError if the folder is no longer the run's folder."""
    trainer, folder = experiment.trainer, experiment.folder
    trainer.saver.check()
    summary = {"step": trainer.step, "seconds": round(trainer.log.seconds, 2), **metrics}
    best = trainer.best
    if best:
        summary["best_step"] = best.step
    stopped = trainer.stop.signal if trainer.step < trainer.steps else None
    if stopped:
        saved = f"saved {folder} at step {trainer.step:,}; the same command goes on from there"
        unstarted = f"stopped {folder} before its first step; the same command starts it again"
        experiment.say(f"{stopped.name}: {saved if trainer.step else unstarted}")
    elif experiment.processes.is_first:
        write_json(folder / "summary.json", summary, within=folder)
        experiment.say(
            f"done: {folder}, {trainer.step:,} steps in {duration(trainer.log.seconds)}"
            + (f"; best {best.metric} {figure_text(best.metrics[best.metric])} at step {best.step:,}" if best else "")
        )
    return summary, 128 + stopped if stopped else 0


WARM, LEAST, MOST = 3, 5, 200
"""The number of steps before time is measured, and the smallest and largest number of timed steps."""
SHARE, SECONDS = 0.02, 20.0
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
        first = processes.broadcast(timed(LEAST) if processes.is_first else (timed(LEAST), None)[1])
        seconds = min(SECONDS, SHARE * config.training.minutes * 60)
        remaining = min(max(int(seconds / first) - LEAST, 0), MOST)
        return (first * LEAST + timed(remaining) * remaining) / (LEAST + remaining) if remaining else first
