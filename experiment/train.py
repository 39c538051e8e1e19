"""The training of one run: it is locked, continued from its newest checkpoint, trained and finished."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.fingerprint import VERSION as FINGERPRINT_VERSION
from ..data.processes import Processes
from ..files.errors import RunError
from ..files.printing import duration
from ..tokenizers.base import Part
from ..training import checkpoints as checkpoint
from ..training.adapters import PART
from ..training.checkpoints import NotFiniteError, State
from ..training.early_stop import still_stops
from ..training.ema import Ema
from ..training.log import MetricsFile
from ..training.logger import Loggers
from ..training.loggers.tensorboard import TensorBoard
from ..training.progress import Progress
from .assemble import Experiment, assemble, start
from .changes import FILE as CHANGES
from .changes import check_batch_size, moved_back, note_change, read_changes
from .end import end_training, summarize
from .preflight import (
    check_balance,
    check_best,
    check_leaks,
    check_mixup,
    data_lines,
    lines_about_inputs,
    lines_about_unused_inputs,
)
from .run_folder import (
    check_is_free,
    check_links,
    prepare_run,
    run_lock,
    summary_of,
)
from .settings.config import Config
from .steps import with_steps
from .stored_weights import load_weights
from .transfer import take_weights


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
            if os.path.isfile(folder / CHANGES):
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
        check_best(name, data.tasks, config.evaluation.generated, evaluation.evaluators, corpus=not train.answerable,
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
    elif experiment.config.training.adapters:
        raise RunError("training.adapters needs the run to whose weights the adapters are added: from=RUN")
    return None


def continued(experiment: Experiment, step: int) -> State:
    """Load the checkpoint of a step, print the changes of the run, and return the state."""
    changes = read_changes(experiment.folder) if experiment.processes.is_first else ()
    check_batch_size(experiment.folder, changes)
    state = load(experiment, step)
    experiment.say(f"resumed {experiment.folder} at step {step:,}")
    for line in (line for change in changes for line in change.lines()):
        experiment.say(line)
    return state


def copy_weights(experiment: Experiment) -> None:
    """Copy the weights of the run of `from:`. Raises RunError if none of them fit."""
    processes, model, ema = experiment.processes, experiment.model, experiment.config.training.ema
    if processes.is_first:
        experiment.say(take_weights(model, experiment.config))
    send_weights(experiment)
    if ema:
        experiment.trainer.learner.averages = Ema(model, ema)
    if experiment.config.training.adapters:
        base = {name: value for name, value in model.state_dict().items() if PART not in name}
        keep_base(experiment, checkpoint.write_base(experiment.folder, base) if processes.is_first else "")


def send_weights(experiment: Experiment) -> None:
    """Send the weights of the first process to the other processes."""
    processes, model = experiment.processes, experiment.model
    tensors = model.state_dict() if processes.is_first else {}
    model.load_state_dict(processes.broadcast_tensors({name: value.cpu() for name, value in tensors.items()}))


def keep_base(experiment: Experiment, base: str) -> None:
    """Let every checkpoint of the run contain the hash of the base of its adapters."""
    saver = experiment.trainer.saver
    experiment.trainer.saver = replace(saver, known={**saver.known, "base": base})


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
    if processes.world_size > 1:
        send_weights(experiment)
    parts = {
        part: processes.broadcast_tensors(checkpoint.read_part(folder, step, part) if processes.is_first else None)
        for part in ("optimizer", "ema")
    }
    if state.base:
        keep_base(experiment, state.base)
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
    if trainer.rollouts:
        trainer.rollouts.restore(step, state.rollout)
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
    if step is None or experiment.trainer.loader.skipped or experiment.trainer.rollouts:
        none, again = "there is no checkpoint to go back to", "it went back once before and does not do so again"
        again = "the samples of rollouts are not skipped" if experiment.trainer.rollouts else again
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
    loggers: dict[str, object] = {"tensorboard": TensorBoard()} if logging.tensorboard else {}
    loggers |= {name: logger_of(name, part) for name, part in logging.also.items()}
    for logger in loggers.values():
        for address in getattr(logger, "addresses", tuple)():
            config.trust.check_address(address)
    opened = Loggers(loggers, experiment.say)
    opened.call("open", experiment.folder, experiment.trainer.step, config.tree)
    return opened


def logger_of(name: str, part: Part) -> object:
    """Returns the logger `logging.also.NAME`. Raises RunError if its constructor does not accept the keys."""
    try:
        return part()
    except TypeError as error:
        raise RunError(
            f"logging.also.{name}: {error}; the keys of a logger are its keyword-only parameters: "
            "def __init__(self, *, key=...)"
        ) from error
