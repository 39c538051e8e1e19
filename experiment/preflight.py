"""Preflight checks of a run, and the lines that it prints before its first step."""

from __future__ import annotations

from ..training import preflight as checks
from .assembly.assemble import Experiment
from .assembly.watching import run_of
from .opening.acting import check_steps
from .opening.environments import episodes_in
from .opening.played import beyond, check_plays
from .views.data_summary import data_lines
from .views.learned import check_learns


def preflight(experiment: Experiment) -> None:
    """Check before the first step that tasks which need whole batches get them, `checkpoints.best` is a metric, the
    prompt can be encoded, the model can play and learn in its context as `evaluation` says, attribution has inputs to
    leave out, and no target of the first batch can reach its own predictor. Raises ValueError for the first check that
    fails."""
    config, tasks, splits = experiment.config, experiment.data.tasks, experiment.data.splits
    settings = config.training
    rows = settings.rows_per_micro_batch or splits["train"].rows
    whole = rows >= splits["train"].rows and experiment.processes.world_size == 1 and not settings.mixup
    checks.check_batches_are_whole(tasks, whole)
    checks.check_best(config.checkpoints.best, tasks, config.evaluation.generated,
                      experiment.trainer.evaluator.returns, corpus=splits["val"].samples is None)  # fmt: skip
    checks.check_prompt(config.evaluation.prompt, tasks, experiment.data.choppers)
    run = run_of(config, experiment.data, experiment.trainer.evaluator.objective)
    if config.data.dataset and episodes_in(run):
        check_steps(run)
    if config.evaluation.play:
        check_plays(run, config.evaluation.play)
        for line in beyond(experiment.data.about.get("returns"), config.evaluation.play.targets):
            experiment.say(f"evaluation.play.targets: {line}")
    if config.evaluation.in_context:
        check_learns(run, config.evaluation.in_context)
    if config.evaluation.attribution:
        checks.check_attribution(splits["val"], tasks)
    checks.check_leaks(experiment.model, splits["train"], settings.seed)


def introduce(experiment: Experiment) -> None:
    """Print folder, number of trainable parameters, device, precision, and notes about the inputs; before the first
    step, since that may take long."""
    processes, choices = experiment.processes, experiment.choices
    count = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    compiled = ", compiled" if choices.compile else ""
    several = f" in {processes.world_size} processes" if processes.world_size > 1 else ""
    where = f"{processes.device.type}{several} in {choices.precision}{compiled}"
    experiment.say(f"{experiment.folder}: {count:,} parameters on {where}")
    for line in about_inputs(experiment) if experiment.trainer.step == 0 and processes.is_first else ():
        experiment.say(line)


def about_inputs(experiment: Experiment) -> list[str]:
    """Lines about a configuration's data: what was read and what it becomes, how often each input is withheld, which
    ones hold a task's target, and which ones nobody reads."""
    config, data, split = experiment.config, experiment.data, experiment.data.splits["train"]
    lines = data_lines(data.name, data.splits, config.wiring.columns, data.tasks)
    lines += checks.lines_about_inputs(split, data.tasks, config.wiring.columns, config.wiring.encoded)
    return lines + checks.lines_about_unread(experiment.model, split, list(data.choppers), config.training.seed)
