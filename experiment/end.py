"""The end of a training: averaged weights, evaluation of the best checkpoint, the page, and `summary.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..files.printing import duration, figure_text
from ..files.writing import write_json
from ..inference.evaluator import Evaluator
from ..training import checkpoints as checkpoint
from ..training.ema import Ema
from ..training.evaluation import result_of
from .assemble import Experiment
from .run import load_run
from .run_folder import valid_step


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
    return evaluate_best(experiment)


def evaluate_best(experiment: Experiment) -> dict[str, float]:
    """Run the evaluators of the end with the best checkpoint."""
    trainer = experiment.trainer
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
    model.load_state_dict(own | processes.broadcast_tensors(weights if processes.is_first else None))
    try:
        yield step
    finally:
        model.load_state_dict(own)


def evaluate_saved(experiment: Experiment, saved: Sequence[Evaluator]) -> None:
    """Run the evaluators whose `when` is "saved", which need the saved run, and print their results."""
    config = experiment.config
    experiment.trainer.saver.check()
    run = load_run(experiment.folder, device=experiment.processes.device.type, trust=config.trust.modules,
                   remote=config.trust.hosts)  # fmt: skip
    for evaluator in saved:
        report = result_of(evaluator, run, experiment.say)
        experiment.trainer.log.show(report.tables, report.lines)


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
