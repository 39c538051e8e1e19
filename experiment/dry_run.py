"""`--dry-run`: everything that can be known before training, printed, and one real step."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from ..data.processes import Processes
from ..files.printing import plain_console
from ..models.model import Model
from ..training.accounting import memory_estimate, parameters_by_part
from ..training.log import Progress, Throughput, peak_memory, scaled
from ..training.loop import Learner
from .settings.config import Config
from .settings.document import dumped
from .train import Experiment, about_inputs, assemble, counted, preflight, resume, start


def dry_run(config: Config) -> None:
    """Print the resolved configuration, the costs, and why no target can reach its own predictor; run one step.

    The run's folder is a temporary one. Raises what training would raise before its first step.
    """
    processes = Processes.start(config.training.device)
    console = plain_console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(dumped(config.tree).rstrip())
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False, also={})
        known = counted(replace(config, out=Path(folder), logging=logging))
        experiment = assemble(known, processes, Progress(1))
        resume(experiment)
        preflight(experiment)
        trainer = experiment.trainer
        with trainer.loader as loader:
            console.print(parameter_table(experiment.model))
            console.print(rate_table(trainer.learner))
            if processes.is_first and (about := experiment.data.dataset.about()):
                told = ", ".join(f"{name} {value}" for name, value in about.items())
                console.print(f"data: {config.data.dataset.use}, {told}")
            for line in (*batch_lines(experiment), *about_inputs(experiment), *leak_lines(experiment.model)):
                console.print(line)
            start(experiment)
            loss = processes.sum(trainer.learner.update(0, loader.load(0))).item()
        memory = scaled(peak_memory(processes.device), "B")
        console.print(f"one step: loss {loss:.4f}, peak memory of the whole process {memory}")


def parameter_table(model: Model) -> Table:
    """Parameter counts by part of the model: `tokenizers.text`, `cores.main`, `heads.lm`, ..."""
    table = Table("part", "parameters", title="model", title_justify="left")
    table.columns[1].justify = "right"
    parts = parameters_by_part(model)
    for part, count in parts.items():
        table.add_row(part, f"{count:,}")
    table.add_row("all", f"{sum(parts.values()):,}", style="bold")
    return table


def rate_table(learner: Learner) -> Table:
    """The peak learning rate and the number of parameters of every optimizer group, and how many are frozen."""
    table = Table("group", "peak rate", "parameters", title="learning rates", title_justify="left")
    table.columns[2].justify = "right"
    for name, (rate, count) in learner.optimizer.rates().items():
        table.add_row(name, f"{rate:.3g}", f"{count:,}")
    frozen = sum(p.numel() for p in learner.model.parameters() if not p.requires_grad)
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}")
    return table


def batch_lines(experiment: Experiment) -> list[str]:
    """Tokens, padding and micro-batches of the first step, epochs of the run, FLOP a step, precision, and an estimate
    of the memory in bytes."""
    settings, choices, trainer = experiment.config.training, experiment.choices, experiment.trainer
    train, processes = experiment.data.splits["train"], experiment.processes
    planned = trainer.loader.planned(0)
    read = Throughput().plus(planned, trainer.log.flops, 0.0).over(processes)
    own = processes.share(train.plan(settings.seed, 0), trainer.loader.together)
    most = len(trainer.loader.parts(own, train.rows)[0])
    estimate = memory_estimate(
        experiment.model, most, ema=bool(settings.ema), half=choices.precision != "float32",
        optimizer_values=trainer.learner.optimizer.state_values(),
    )  # fmt: skip
    unit, padding = train.unit.split()[0], read.slots - read.tokens
    length = f"{settings.steps:,} steps, {settings.steps * train.rows / len(train):.2f} epochs"
    length = length if settings.minutes is None else f"{settings.minutes:g} minutes"
    return [
        f"a step: {train.rows} {train.unit} = {read.tokens:,} tokens and {padding:,} slots of padding "
        f"({padding / read.slots:.1%}), in {processes.world_size} process(es), {len(planned)} "
        f"micro-batch(es) of at most {most} {unit} each",
        f"the run: {length} of {len(train):,} {unit}; {len(experiment.data.splits['val']):,} to validate",
        f"arithmetic: {scaled(read.flops, 'FLOP')} a step",
        f"precision {choices.precision}, {'compiled' if choices.compile else 'eager'}, on {processes.device.type}"
        + (f" ({choices.note})" if choices.note else ""),
        "memory, estimated: " + ", ".join(f"{name} {scaled(size, 'B')}" for name, size in estimate.items()),
    ]


def leak_lines(model: Model) -> list[str]:
    """Why no target can reach its own predictor, a line per core: by the form of its attention graphs, else by a search
    in every new layout before it is used (see `models/leaks.py`)."""
    lines, check = [], model.leak_check
    if not check.by_form + check.searched:
        return ["no leak: nothing that is predicted stands among the tokens that are read"]
    for name, core in model.cores.items():
        patterns = list(dict.fromkeys(core.graphs))
        ahead = [graph.ahead() for graph in patterns]
        in_time = [axis for axis in range(1, core.axes) if all(each.ahead(axis) == frozenset() for each in patterns)]
        if all(each == frozenset() for each in ahead):
            why = "nobody reads what stands later, by the form of its graph: this holds for all batches"
        elif in_time:
            axis = core.position.axes[in_time[0]]
            why = f"nobody reads what is later in {axis}, by the form of its graph: this holds for all batches"
        elif None not in ahead:
            names = ", ".join(model.inputs[number - 1] for number in sorted(frozenset().union(*ahead)))
            why = f"only {names} are read ahead of time; that they stand before every target is checked in every batch"
        else:
            follows = "every new layout is followed through all layers before it is used"
            why = f"its graph proves nothing by its form: {follows}"
        lines.append(f"no leak in {name}: in {len(core.graphs)} layers of {len(patterns)} graph(s) {why}")
    return [*lines, f"first batch: {check.by_form:,} targets safe by form, {check.searched:,} layouts searched"]
