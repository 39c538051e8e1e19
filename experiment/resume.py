"""Where a run begins: at its newest sound checkpoint, at another run's weights, or at initial values; and the return to
a checkpoint when training becomes non-finite."""

from __future__ import annotations

from ..training.checkpoints import files as checkpoint
from ..training.checkpoints.state import State
from ..training.ema import Ema
from ..training.record.metrics_file import MetricsFile
from .assembly.assemble import Experiment
from .folder.reading import RunError, load_weights
from .folder.transfer import take_weights


def resume(experiment: Experiment) -> State | None:
    """Load the newest sound checkpoint and give its state; without one (None), take the weights of the run that `from:`
    names, or keep the initial values. Raises RunError where the data changed since, or nothing fits from `from:`."""
    processes, config = experiment.processes, experiment.config
    if experiment.choices.note:
        experiment.say(experiment.choices.note)
    step = newest(experiment)
    if step is not None:
        state = load(experiment, step)
        experiment.say(f"resumed {experiment.folder} at step {step:,}")
        return state
    if config.from_run:
        if processes.is_first:
            experiment.say(take_weights(experiment.model, config))
        own = experiment.model.state_dict() if processes.is_first else {}
        experiment.model.load_state_dict(processes.told_tensors({name: value.cpu() for name, value in own.items()}))
        if config.training.ema:
            experiment.trainer.learner.averages = Ema(experiment.model, config.training.ema)
    return None


def newest(experiment: Experiment) -> int | None:
    """The step of the newest sound checkpoint, None where there is none; the same in all processes."""
    first = experiment.processes.is_first
    return experiment.processes.told(checkpoint.newest_sound(experiment.folder, experiment.say) if first else None)


def load(experiment: Experiment, step: int) -> State:
    """Load model, optimizer and averages from the checkpoint of a step, which the first process reads and sends to the
    others; gives its state. Raises RunError where the data or a vocabulary changed since it was written."""
    processes, trainer, folder = experiment.processes, experiment.trainer, experiment.folder
    learner, state = trainer.learner, None
    if processes.is_first:
        state = load_weights(experiment.model, folder, step, experiment.data.choppers, averaged=False)
    state = processes.told(state)
    parts = {
        part: processes.told_tensors(checkpoint.read_part(folder, step, part) if processes.is_first else None)
        for part in (("model", "optimizer", "ema") if processes.world_size > 1 else ("optimizer", "ema"))
    }
    if not processes.is_first:
        experiment.model.load_state_dict(parts["model"])
    there = experiment.data.contents
    if state.data != there:
        wrong = ", ".join(name for name, source in there.items() if state.data.get(name) != source)
        raise RunError(f"{folder}: the data ({wrong}) changed since step {step}; start again with another out=")
    learner.optimizer.load(parts["optimizer"])
    if state.averaged and step == trainer.steps:
        learner.averages = Ema(experiment.model, 0.0)
    if learner.averages and parts["ema"]:
        learner.averages.load(parts["ema"])
    stand(experiment, step, state)
    return state


def stand(experiment: Experiment, step: int, state: State) -> None:
    """Set the trainer, its log and its loader to a checkpoint's step and state."""
    trainer, last = experiment.trainer, step == experiment.trainer.steps
    trainer.step, trainer.evaluated = step, state.evaluated
    trainer.best = state.best if state.best and state.best.metric == trainer.saver.best else None
    trainer.finished, trainer.averaged = state.finished and last, state.averaged and last
    trainer.log.resume(state.seconds, state.unreported)
    trainer.loader.skipped = list(state.skipped)
    trainer.loader.forget()
    known = {int(n): why for n, why in state.bad.items() if n.isdecimal() and len(n) < 16}  # int() refuses longer ones
    experiment.data.splits["train"].unread.bad.remember(known)
    if experiment.processes.is_first:
        trainer.saver.point_to_best(trainer.best)


def go_back(experiment: Experiment, error: checkpoint.NotFiniteError) -> State:
    """Return to the last sound checkpoint, once, and skip the batches from there to the failure. They are written as
    `skipped`, (step, count), into the checkpoint's state first, so that every later resume skips the same. Raises
    RunError the second time, and where there is no checkpoint."""
    failed, processes = experiment.trainer.step, experiment.processes
    processes.wait()
    step = newest(experiment)
    advice = "try a smaller training.learning_rate, more warmup, or precision float32"
    if step is None or experiment.trainer.loader.skipped:
        none, twice = "there is no checkpoint to go back to", "it went back once before, and does not again"
        raise RunError(f"{error} near step {failed:,}; {none if step is None else twice}; {advice}")
    if processes.is_first:
        state = checkpoint.read_state(experiment.folder, step)
        told = state.model_dump(exclude={"files", "step", "skipped"})
        checkpoint.add(experiment.folder, step, {}, {**told, "skipped": [(step, failed - step)]})
    processes.wait()
    state = load(experiment, step)
    experiment.say(
        f"{error} near step {failed:,}: back to the checkpoint of step {step:,}, and on without the batches {step:,} "
        f"to {failed - 1:,}. If it happens again, {advice}"
    )
    return state


def metrics_file(experiment: Experiment, state: State | None) -> MetricsFile:
    """`metrics.jsonl`, to be continued from the run's step; lines of later steps are removed."""
    return MetricsFile(
        experiment.folder, step=experiment.trainer.step, lines=state.records if state else (),
        tensorboard=experiment.config.logging.tensorboard, writes=experiment.processes.is_first,
        check=experiment.trainer.saver.check,
    )  # fmt: skip
