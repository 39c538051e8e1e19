"""`--dry-run`: prints the configuration and its costs, and performs one real training step."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from ..data.processes import Processes
from ..files.printing import plain_console, scaled
from ..models.model import Model
from ..training.accounting import Throughput, memory_estimate, parameters_by_part, peak_memory
from ..training.loop import Learner
from ..training.progress import Progress
from .assemble import Experiment, assemble, start
from .settings.config import Config
from .settings.document import dumped
from .steps import counted
from .train import about_inputs, preflight, resume


def dry_run(config: Config, full: bool = False) -> None:
    """Print the costs of a configuration and the result of the leak check; then perform one training step. `full`: also
    print the configuration with all defaults.

    The run's folder is a temporary folder. Raises the errors that training raises before its first step."""
    processes = Processes.start(config.training.device)
    console = plain_console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(f"{config.path}: a dry run; a training would write to {config.out}")
    if full:
        console.print(dumped(config.tree).rstrip())
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False, also={})
        counted_config = counted(replace(config, out=Path(folder), logging=logging))
        experiment = assemble(counted_config, processes, Progress(1))
        resume(experiment)
        preflight(experiment)
        trainer = experiment.trainer
        with trainer.loader as loader:
            console.print(parameter_table(experiment.model))
            console.print(rate_table(trainer.learner))
            if processes.is_first and (description := experiment.data.dataset.about()):
                facts = ", ".join(f"{name} {fact_text(value)}" for name, value in description.items())
                console.print(f"data: {config.data.dataset.use}, {facts}")
            for line in (*batch_lines(experiment), *about_inputs(experiment), *leak_lines(experiment.model)):
                console.print(line)
            start(experiment)
            loss = processes.sum(trainer.learner.update(0, loader.load(0))).item()
        memory = scaled(peak_memory(processes.device), "B")
        console.print(f"one step: loss {loss:.4f}, peak memory of the process {memory}")


def fact_text(value: Any) -> str:
    """Returns a fact about a data set as text. Several numbers have their names: `208 (train), 24 (val)`. Equal numbers
    of all splits are written once, because the data are divided later: `208`."""
    if not isinstance(value, Mapping):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if not value:
        return "none"
    texts = [fact_text(each) for each in value.values()]
    if len({*texts}) == 1 and value.keys() <= {"train", "val", "test"}:
        return texts[0]
    return ", ".join(f"{text} ({split})" for split, text in zip(value, texts, strict=True))


def parameter_table(model: Model) -> Table:
    """Returns a table of the number of parameters in each part of the model: `tokenizers.text`, `cores.main`,
    `heads.lm`, ..."""
    table = Table("part", "parameters", title="model", title_justify="left")
    table.columns[1].justify = "right"
    parts = parameters_by_part(model)
    for part, count in parts.items():
        table.add_row(part, f"{count:,}")
    table.add_row("all", f"{sum(parts.values()):,}", style="bold")
    return table


def rate_table(learner: Learner) -> Table:
    """Returns a table with the peak learning rate and the number of parameters of every optimizer group. The last row
    is the number of frozen parameters, if there are any."""
    table = Table("group", "peak rate", "parameters", title="learning rates", title_justify="left")
    table.columns[2].justify = "right"
    for name, (rate, count) in learner.optimizer.rates().items():
        table.add_row(name, f"{rate:.3g}", f"{count:,}")
    frozen = sum(p.numel() for p in learner.model.parameters() if not p.requires_grad)
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}")
    return table


def batch_lines(experiment: Experiment) -> list[str]:
    """Returns lines about the first step (tokens, padding, micro-batches), the length of the run, the FLOP of a step,
    the precision, and the estimated memory in bytes."""
    settings, choices, trainer = experiment.config.training, experiment.choices, experiment.trainer
    train, processes = experiment.data.splits["train"], experiment.processes
    planned = trainer.loader.planned(0)
    throughput = Throughput().plus(planned, trainer.log.flops, 0.0).over(processes)
    local_samples = processes.share(train.plan(settings.seed, 0), trainer.loader.together)
    micro_batch_rows = len(trainer.loader.parts(local_samples, train.rows)[0])
    estimate = memory_estimate(
        experiment.model, micro_batch_rows, ema=bool(settings.ema), half=choices.precision != "float32",
        optimizer_values=trainer.learner.optimizer.state_values(),
    )  # fmt: skip
    unit, padding = train.unit.split()[0], throughput.slots - throughput.tokens
    steps = settings.steps if settings.epochs is None else train.steps_of(settings.epochs, settings.seed)
    length = f"{steps:,} steps, {settings.epochs or steps * train.rows / len(train):.2f} epochs"
    length = length if settings.minutes is None else f"{settings.minutes:g} minutes"
    return [
        f"a step: {train.rows} {train.unit} = {throughput.tokens:,} tokens and {padding:,} slots of padding "
        f"({padding / throughput.slots:.1%}), in {processes.world_size} process(es), {len(planned)} "
        f"micro-batch(es) of at most {micro_batch_rows} {unit} each",
        f"the run: {length} of {len(train):,} {unit}; {len(experiment.data.splits['val']):,} to validate",
        f"arithmetic: {scaled(throughput.flops, 'FLOP')} a step",
        f"precision {choices.precision}, {'compiled' if choices.compile else 'eager'}, on {processes.device.type}"
        + (f" ({choices.note})" if choices.note else ""),
        "memory, estimated: " + ", ".join(f"{name} {scaled(size, 'B')}" for name, size in estimate.items()),
    ]


def leak_lines(model: Model) -> list[str]:
    """Returns lines, one per core, with the reason why no target can reach the slot that predicts it. Either this
    follows from the attention graphs alone, or every new batch layout is searched before it is used (see
    `models/leaks.py`)."""
    lines, check = [], model.leak_check
    if not check.by_form + check.searched:
        return ["no leak: no predicted token is among the input tokens"]
    for name, core in model.cores.items():
        graphs = list(dict.fromkeys(core.graphs))
        ahead = [graph.ahead() for graph in graphs]
        in_time = [axis for axis in range(1, core.axes) if all(graph.ahead(axis) == frozenset() for graph in graphs)]
        if all(inputs == frozenset() for inputs in ahead):
            reason = "no token attends to a later token; this follows from the graph and holds for all batches"
        elif in_time:
            axis = core.position.axes[in_time[0]]
            reason = (
                f"no token attends to a token later in {axis}; this follows from the graph and holds for all batches"
            )
        elif None not in ahead:
            names = ", ".join(model.inputs[number - 1] for number in sorted(frozenset().union(*ahead)))
            reason = (
                f"tokens attend to later tokens of {names} only; "
                "each batch is checked for whether these precede all targets"
            )
        else:
            search = "every new batch layout is searched through all layers before it is used"
            reason = f"the graph alone does not exclude leaks; {search}"
        lines.append(f"no leak in {name}: {len(core.graphs)} layers, {len(graphs)} graph(s): {reason}")
    return [
        *lines,
        f"first batch: {check.by_form:,} targets safe by the form of the graph, {check.searched:,} layouts searched",
    ]
