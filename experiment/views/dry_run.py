"""`--dry-run`: everything that can be known before training, printed, and one real step as the proof."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...data.processes import Processes
from ...models.model import Model
from ...tokenizers.files.printing import printable
from ...training.accounting import memory_estimate, parameters_by_part
from ...training.loop import Learner
from ...training.record.progress import Progress, peak_memory, scaled
from ...training.record.throughput import Throughput
from ..assemble import Experiment, assemble, start
from ..resume import resume
from ..settings.config import Config
from ..settings.document import dumped
from ..train import about_inputs, preflight


def dry_run(config: Config) -> None:
    """Print the resolved configuration, the costs and the proof that no target is reachable; run one step.

    Nothing is left behind: the run's folder is a temporary one.
    """
    processes = Processes.start(config.training.device)
    console = Console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(printable(dumped(config.tree).rstrip()), markup=False)
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False)
        experiment = assemble(replace(config, out=Path(folder), logging=logging), processes, Progress(1))
        resume(experiment)
        preflight(experiment)
        trainer = experiment.trainer
        with trainer.loader as loader:
            console.print(parameter_table(experiment.model))
            console.print(rate_table(trainer.learner))
            if processes.is_first and experiment.about:
                told = ", ".join(f"{name} {value}" for name, value in experiment.about.items())
                console.print(printable(f"data: {config.data.dataset.use}, {told}"), markup=False)
            for line in (*batch_lines(experiment), *about_inputs(experiment), *leak_lines(experiment.model)):
                console.print(printable(line), markup=False)
            start(experiment)
            loss = processes.sum(trainer.learner.update(0, loader.load(0))).item()
        console.print(
            f"one step: loss {loss:.4f}, peak memory of the whole process {scaled(peak_memory(processes.device), 'B')}"
        )


def parameter_table(model: Model) -> Table:
    """Parameters by part of the model."""
    table = Table("part", "parameters", title="model", title_justify="left")
    table.columns[1].justify = "right"
    parts = parameters_by_part(model)
    for part, count in parts.items():
        table.add_row(part, f"{count:,}")
    table.add_row("all", f"{sum(parts.values()):,}", style="bold")
    return table


def rate_table(learner: Learner) -> Table:
    """The peak rate of every group of the optimizer, and how many parameters it reaches."""
    table = Table("group", "peak rate", "parameters", title="learning rates", title_justify="left")
    table.columns[2].justify = "right"
    for name, (rate, count) in learner.optimizer.rates().items():
        table.add_row(name, f"{rate:.3g}", f"{count:,}")
    frozen = sum(p.numel() for p in learner.objective.model.parameters() if not p.requires_grad)
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}")
    return table


def batch_lines(experiment: Experiment) -> list[str]:
    """Tokens a step, how they are split up, and what a step costs."""
    settings, choices, trainer = experiment.config.training, experiment.choices, experiment.trainer
    train, processes = experiment.splits["train"], experiment.processes
    planned = trainer.loader.planned(0)
    read = Throughput().plus(planned, trainer.log.flops, 0.0).over(processes)
    own = processes.share(train.plan(settings.seed, 0), trainer.loader.together)
    most = len(trainer.loader.parts(own, train.rows)[0])
    estimate = memory_estimate(
        experiment.model, most, ema=bool(settings.ema), half=choices.precision != "float32",
        optimizer_values=trainer.learner.optimizer.state_values(),
    )  # fmt: skip
    unit, padding = train.unit.split()[0], read.slots - read.tokens
    return [
        f"a step: {train.rows} {train.unit} = {read.tokens:,} tokens and {padding:,} slots of padding "
        f"({padding / read.slots:.1%}), in {processes.count} process(es), {len(planned)} micro-batch(es) of at most "
        f"{most} {unit} each",
        f"the run: {settings.steps:,} steps, {settings.steps * train.rows / len(train):.2f} epochs of {len(train):,} "
        f"{unit}; {len(experiment.splits['val']):,} to validate",
        f"arithmetic: {scaled(read.flops, 'FLOP')} a step",
        f"precision {choices.precision}, {'compiled' if choices.compile else 'eager'}, on {processes.device.type}"
        + (f" ({choices.note})" if choices.note else ""),
        "memory, estimated: " + ", ".join(f"{name} {scaled(size, 'B')}" for name, size in estimate.items()),
    ]


def leak_lines(model: Model) -> list[str]:
    """Why no target can reach its predictor: by the form of the graphs, else by a check of every layout before it
    is used."""
    lines, check = [], model.leak_check
    if not check.by_form + check.searched:
        return ["no leak: nothing that is predicted stands among the tokens that are read"]
    for name, core in model.cores.items():
        patterns = list(dict.fromkeys(core.graphs))
        ahead = [graph.ahead() for graph in patterns]
        if all(each == frozenset() for each in ahead):
            why = "nobody reads what stands later, by the form of its graph: this holds for all batches"
        elif None not in ahead:
            names = [model.inputs[number - 1] for number in sorted(frozenset().union(*ahead))]
            names = ", ".join(names)
            why = f"only {names} are read ahead of time; that they stand before every target is checked in every batch"
        else:
            why = (
                "its graph proves nothing by its form: every new layout is followed through all layers "
                "before it is used"
            )
        lines.append(f"no leak in {name}: in {len(core.graphs)} layers of {len(patterns)} graph(s) {why}")
    return [*lines, f"first batch: {check.by_form:,} targets safe by form, {check.searched:,} layouts searched"]
