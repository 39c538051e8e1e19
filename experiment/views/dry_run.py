"""`--dry-run`: everything that can be known before training, printed, and one real step as the proof."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...data.corpus import StreamSplit
from ...data.processes import Processes
from ...models.tokens import PADDING
from ...tokenizers.files.printing import printable
from ...training.accounting import memory_estimate, parameters_by_part
from ...training.loop import Trainer
from ...training.preflight import prove, told_of_inputs
from ...training.record import Progress, peak_memory, scaled
from ..settings.config import Config, dumped


def dry_run(config: Config) -> None:
    """Print the resolved configuration, the costs and the proof that no target is reachable; run one step.

    Nothing is left behind: the run's folder is a temporary one.
    """
    processes = Processes.start(config.training.device)
    console = Console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(printable(dumped(config.tree).rstrip()), markup=False)
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False)
        trainer = Trainer(replace(config, out=Path(folder), logging=logging), processes, Progress(1))
        trainer.resume()
        prove(trainer)
        console.print(parameter_table(trainer))
        console.print(rate_table(trainer))
        if processes.is_first and trainer.about:
            told = ", ".join(f"{name} {value}" for name, value in trainer.about.items())
            console.print(printable(f"data: {config.data.dataset.use}, {told}"), markup=False)
        for line in (*batch_lines(trainer), *told_of_inputs(trainer), *proof_lines(trainer)):
            console.print(printable(line), markup=False)
        trainer.forward = trainer.wrapped()
        loss = processes.sum(trainer.update(0)).item()
        console.print(
            f"one step: loss {loss:.4f}, peak memory of the whole process {scaled(peak_memory(processes.device), 'B')}"
        )


def parameter_table(trainer: Trainer) -> Table:
    """Parameters by part of the model."""
    table = Table("part", "parameters", title="model", title_justify="left")
    table.columns[1].justify = "right"
    parts = parameters_by_part(trainer.model)
    for part, count in parts.items():
        table.add_row(part, f"{count:,}")
    table.add_row("all", f"{sum(parts.values()):,}", style="bold")
    return table


def rate_table(trainer: Trainer) -> Table:
    """The peak rate of every group of the optimizer, and how many parameters it reaches."""
    table = Table("group", "peak rate", "parameters", title="learning rates", title_justify="left")
    table.columns[2].justify = "right"
    for name, (rate, count) in trainer.optimizer.rates().items():
        table.add_row(name, f"{rate:.3g}", f"{count:,}")
    frozen = sum(p.numel() for p in trainer.model.parameters() if not p.requires_grad)
    if frozen:
        table.add_row("frozen", "", f"{frozen:,}")
    return table


def batch_lines(trainer: Trainer) -> list[str]:
    """Tokens a step, how they are split up, and what a step costs."""
    settings, model = trainer.settings, trainer.model
    parts = trainer.split(trainer.processes.share(list(range(trainer.rows)), trainer.together), trainer.rows)
    estimate = memory_estimate(
        model,
        len(parts[0]),
        ema=bool(settings.ema),
        optimizer_values=trainer.optimizer.state_values(),
        half=trainer.choices.precision != "float32",
    )
    planned = [batch for batch, _ in trainer.planned(0)]
    own = [int((s.tokens.sample != PADDING).sum()) for batch in planned for s in batch.sets.values()]
    all_places = [s.tokens.sample.numel() for batch in planned for s in batch.sets.values()]
    flops = sum(map(trainer.costs.flops, planned))
    tokens, places, flops = trainer.processes.agree([sum(own), sum(all_places), flops])
    tokens, places = int(tokens), int(places)
    stream = isinstance(trainer.splits["train"], StreamSplit)
    unit = f"rows of {trainer.splits['train'].context}" if stream else "samples"
    epoch, judged = len(trainer.splits["train"]), len(trainer.splits["val"])
    return [
        f"a step: {trainer.rows} {unit} = {tokens:,} tokens and {places - tokens:,} places of padding "
        f"({1 - tokens / places:.1%}), in {trainer.processes.count} process(es), {len(parts)} micro-batch(es) of at "
        f"most {len(parts[0])} {unit.split()[0]} each",
        f"the run: {settings.steps:,} steps, {settings.steps * trainer.rows / epoch:.2f} epochs of {epoch:,} "
        f"{unit.split()[0]}; {judged:,} to validate",
        f"arithmetic: {scaled(flops, 'FLOP')} a step",
        f"precision {trainer.choices.precision}, {'compiled' if trainer.choices.compile else 'eager'}, "
        f"on {trainer.device.type}" + (f" ({trainer.choices.note})" if trainer.choices.note else ""),
        "memory, estimated: " + ", ".join(f"{name} {scaled(size, 'B')}" for name, size in estimate.items()),
    ]


def proof_lines(trainer: Trainer) -> list[str]:
    """Why no target can reach its predictor: by the form of the graphs, else by a check of every layout before it is
    used."""
    lines, check = [], trainer.model.leak_check
    if not check.by_form + check.searched:
        return ["no leak: nothing that is predicted stands among the tokens that are read"]
    for name, core in trainer.model.cores.items():
        patterns = list(dict.fromkeys(core.graphs))
        ahead = [graph.ahead() for graph in patterns]
        if all(each == frozenset() for each in ahead):
            why = "nobody reads what stands later, by the form of its graph: this holds for all batches"
        elif None not in ahead:
            names = ", ".join(trainer.model.inputs[number - 1] for number in sorted(frozenset().union(*ahead)))
            why = f"only {names} are read ahead of time; that they stand before every target is checked in every batch"
        else:
            why = (
                "its graph proves nothing by its form: every new layout is followed through all layers "
                "before it is used"
            )
        lines.append(f"no leak in {name}: in {len(core.graphs)} layers of {len(patterns)} graph(s) {why}")
    return [*lines, f"first batch: {check.by_form:,} targets safe by form, {check.searched:,} layouts searched"]
