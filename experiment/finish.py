"""After the last step, once: averaging of checkpoints, the last evaluation, attribution. All of it is saved in the last
checkpoint before it is reported, so that a kill repeats nothing and loses nothing. What is learned in the context is
measured then, on the best checkpoint, as the command does it."""

from __future__ import annotations

from typing import Any

import torch

from ..inference.attribution import NothingToWithholdError, measure_attribution, tables
from ..tokenizers.files.writing import write_json
from ..training.checkpoints import files as checkpoint
from ..training.ema import Ema
from ..training.objective import autocast
from ..training.record.progress import duration
from .assembly.assemble import Experiment
from .data.columns import truth_of
from .run import load_run
from .views.learned import PICTURE, TABLE, curve_lines, probe_lines, tell


def finish(experiment: Experiment) -> dict[str, float]:
    """Average, evaluate, attribute (each where asked for and not yet done), save; gives the metrics of the summary."""
    trainer, config = experiment.trainer, experiment.config
    if config.checkpoints.average and not trainer.averaged:
        average_last(experiment)
    if trainer.evaluated < trainer.step:
        trainer.evaluate_saving_on_error()
    figures = tell_attribution(experiment) if config.evaluation.attribution and not trainer.finished else {}
    trainer.finished = True
    trainer.save()
    if config.evaluation.in_context and experiment.processes.is_first:
        trainer.saver.check()
        run = load_run(experiment.folder, device=experiment.processes.device.type, trust=config.trust.modules,
                       remote=config.trust.hosts)  # fmt: skip
        rows, probed = tell(run, experiment.folder, config.evaluation.in_context, experiment.say)
        files = f"{experiment.folder / TABLE}, {experiment.folder / PICTURE}"
        for line in [*curve_lines(rows), *probe_lines(probed), files]:
            experiment.say(line)
    for split in experiment.data.splits.values():
        for line in split.unread.everywhere(experiment.processes).told():
            experiment.say(line)
    experiment.processes.wait()
    lines = [line for line in trainer.log.record.here if not any(name.startswith("train/") for name in line)]
    told = {name: value for line in lines for name, value in line.items() if name not in ("step", "seconds")}
    return {name: value for name, value in told.items() if not name.startswith("data/")} | figures


def average_last(experiment: Experiment) -> None:
    """Replace the averaged weights by the mean over the newest `checkpoints.average` checkpoints (Vaswani et al. 2017,
    arXiv:1706.03762, section 6.1). They are the result of the run, so that the best so far is forgotten: the evaluation
    that follows becomes the best."""
    trainer, processes, folder = experiment.trainer, experiment.processes, experiment.folder
    trainer.save()
    processes.wait()
    newest = processes.told(trainer.saver.averaged_steps() if processes.is_first else None)
    mean: dict[str, torch.Tensor] = {}
    if processes.is_first:
        every = [checkpoint.read_part(folder, step, "model") for step in newest]
        mean = {name: torch.stack([each[name] for each in every]).mean(0) for name in every[0]}
    trainer.learner.averages = Ema(experiment.model, 0.0)
    trainer.learner.averages.load(processes.told_tensors(mean if processes.is_first else None))
    experiment.say(f"averaged the weights of steps {', '.join(map(str, newest))}")
    trainer.best, trainer.evaluated, trainer.averaged = None, -1, True


def tell_attribution(experiment: Experiment) -> dict[str, float]:
    """Measure on the validation split what each input contributes to each task, and print tables; gives the figures by
    names such as `val/bits/image` (`val/<task>/bits/image` where there are several tasks)."""
    trainer, config, processes = experiment.trainer, experiment.config, experiment.processes
    try:
        with trainer.learner.averaged(), autocast(processes.device, experiment.choices.precision):
            found = measure_attribution(
                experiment.model, experiment.data.tasks, experiment.data.splits["val"], rows=config.evaluation.rows,
                processes=processes,
            )  # fmt: skip
    except NothingToWithholdError as error:  # in all processes
        experiment.say(f"evaluation.attribution: {error}")
        return {}
    figures: dict[str, float] = {}
    for name, attribution in found.items():
        if processes.is_first:
            task = experiment.data.tasks[name]
            truth = truth_of(config, config.dataset(), "val", task, attribution.inputs)
            experiment.progress.show_tables(*tables(name, attribution, truth))
        figures |= attribution.figures("val" if len(experiment.data.tasks) == 1 else f"val/{name}")
    trainer.log.write(trainer.step, figures)
    return figures


def summarize(experiment: Experiment, metrics: dict[str, float]) -> tuple[dict[str, Any], int]:
    """Print how the run ended, and write `summary.json` where it reached its last step; gives the summary (`step`,
    `seconds`, metrics) and the exit status: 0, or 128 + the signal that stopped it. Raises OSError where the run's
    folder is not there any more."""
    trainer, folder = experiment.trainer, experiment.folder
    trainer.saver.check()
    summary = {"step": trainer.step, "seconds": round(trainer.log.seconds, 2), **metrics}
    stopped = trainer.stop.signal if trainer.step < trainer.steps else None
    if stopped:
        saved = f"saved {folder} at step {trainer.step:,}; the same command goes on from there"
        nothing = f"stopped {folder} before its first step; the same command starts it again"
        experiment.say(f"{stopped.name}: {saved if trainer.step else nothing}")
    elif experiment.processes.is_first:
        write_json(folder / "summary.json", summary, within=folder)
        experiment.say(f"done: {folder}, {trainer.step:,} steps in {duration(trainer.log.seconds)}")
    return summary, 128 + stopped if stopped else 0
