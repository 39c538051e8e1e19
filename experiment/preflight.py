"""Checks before the first step, and the lines that a run prints before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..data.split import Split
from ..inference.evaluation import directions, generates
from ..inference.evaluator import Evaluator
from ..models.leaks import unread
from ..models.model import Model
from ..tasks.base import Task
from .assemble import Experiment
from .data_summary import data_lines


def preflight(experiment: Experiment) -> None:
    """Check before the first step that tasks which need whole batches get them, `checkpoints.best` is a metric, the
    inputs fit to the data, each evaluator can evaluate the model, and no target of the first batch can reach its own
    predictor. Raises ValueError for the first check that fails."""
    config, data, evaluation = experiment.config, experiment.data, experiment.trainer.evaluation
    settings, train = config.training, experiment.data.splits["train"]
    rows = settings.rows_per_micro_batch or train.rows
    whole = rows >= train.rows and experiment.processes.world_size == 1 and not settings.mixup
    check_batches_are_whole(data.tasks, whole)
    check_best(config.checkpoints.best, data.tasks, config.evaluation.generated, evaluation.evaluators,
               corpus=train.samples is None)  # fmt: skip
    data.dataset.check(config.wiring)
    for evaluator in evaluation.evaluators:
        evaluator.check(evaluation.trained(0), experiment.say)
    check_leaks(experiment.model, train, settings.seed)


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
    lines = data_lines(data.dataset.name, data.splits, config.wiring.columns, data.tasks)
    lines += lines_about_inputs(split, data.tasks, config.wiring.columns, config.wiring.encoded)
    return lines + lines_about_unread(experiment.model, split, list(data.choppers), config.training.seed)


def check_best(
    best: str, tasks: Mapping[str, Task], generated: int, evaluators: Sequence[Evaluator] = (), corpus: bool = False
) -> None:
    """Raises ValueError where `best` (`checkpoints.best`) is no metric of the validation split, nor of the evaluators.
    Metrics of generated items do not count with `generated` 0 (`evaluation.generated`), nor
    those that compare texts with the texts of samples where the data are a `corpus`."""
    possible = list(directions(tasks, "val", evaluators))
    for name, task in tasks.items() if not generated or corpus else ():
        prefix = f"val/{name}/" if len(tasks) > 1 else "val/"
        for key, metric in task.metrics.items() if generates(task) else ():
            if (not generated and metric.measured_on != "samples") or (corpus and metric.of_texts):
                possible.remove(prefix + key)
    if best not in possible:
        raise ValueError(f"checkpoints.best is {best!r}; possible: {', '.join(possible)}")


def check_batches_are_whole(tasks: Mapping[str, Task], whole: bool) -> None:
    """Raises ValueError where the loss of a task compares the samples of a batch with each other (`Needs.whole_batch`)
    and the global batch is not one micro-batch of one process (`whole`)."""
    for name, task in tasks.items():
        if task.needs.whole_batch and not whole:
            raise ValueError(
                f"tasks.{name}: its loss compares the samples of a batch, which must be read as a whole. Train it in "
                "one process, without training.rows_per_micro_batch and training.mixup"
            )


def check_leaks(model: Model, split: Split, seed: int) -> None:
    """Raises LeakError where, in the first batch, the slot that predicts a target can read it through the layers of
    attention; every later batch is checked when it is planned (`Model.plan`)."""
    model.leak_check.check(split.batch(split.plan(seed, 0)), *model.graphs)


def lines_about_inputs(
    split: Split, tasks: Mapping[str, Task], columns: Mapping[str, str], encoded: Collection[str]
) -> list[str]:
    """Lines for the user on what a configuration does not show: how often each input is withheld, and which inputs read
    the very column that a task predicts. `columns` maps inputs to data columns, `encoded` are the encoder's inputs.

        tasks.text: the answer stands in column 'text', which text reads: shifted
    """
    lines = []
    if withheld := split.inputs.withheld:
        told = ", ".join(f"{name} from {share:.1%}" for name, share in withheld.items())
        own = split.inputs.dropout
        chances = "any_number" if split.inputs.any_number else ", ".join(f"{own[name]:g}" for name in withheld)
        some = split.inputs.one_stays and not split.inputs.any_number
        kept = ", before one of a sample's inputs is kept" if some else ""
        lines.append(f"withheld of the samples while training: {told} (input_dropout {chances}{kept})")
    for name, task in tasks.items():
        needs = task.needs
        answers = [*needs.columns] or [columns[each] for each in needs.inputs if each not in needs.makes]
        hidden = {*columns} - {*encoded} if encoded and not needs.generates else set()  # only a decoder reads them
        for reader in [each for each, column in columns.items() if column in answers and each not in hidden]:
            how = needs.hides if reader in needs.inputs else "reconstructed"
            lines.append(f"tasks.{name}: the answer stands in column {columns[reader]!r}, which {reader} reads: {how}")
    return lines


def lines_about_unread(model: Model, split: Split, names: Sequence[str], seed: int) -> list[str]:
    """A line for each of the inputs `names` that nothing predicted in the first batch depends on, such as an
    instruction that comes after all actions, with `causal`.

        inputs.mission: nothing that is predicted can read it
    """
    found = unread(split.batch(split.plan(seed, 0)), model.graphs[0]) if len(names) > 1 else []
    return [f"inputs.{names[number - 1]}: nothing that is predicted can read it" for number in found]
