"""`--dry-run`: everything that can be known before training, printed, and one real step as the proof."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from ..data.stream import StreamSplit
from ..models.graph import reach
from ..models.token_set import PADDING
from .accounting import flops_per_token, memory_estimate, parameters_by_part
from .build import make_batch
from .config import Config
from .distribution import Processes
from .loop import Trainer
from .progress import Progress, peak_memory, scaled
from .proofs import prove


def dry_run(config: Config) -> None:
    """Print the resolved configuration, the costs and the proof that no target is reachable; run one step.

    Nothing is left behind: the run's folder is a temporary one.
    """
    processes = Processes.start(config.training.device)
    console = Console(soft_wrap=True, highlight=False, quiet=not processes.is_first)
    console.print(yaml.safe_dump(config.tree, sort_keys=False).rstrip(), markup=False)
    with tempfile.TemporaryDirectory() as folder:
        logging = replace(config.logging, tensorboard=False)
        trainer = Trainer(replace(config, out=Path(folder), logging=logging), processes, Progress(1))
        trainer.resume()
        prove(trainer)
        console.print(parameter_table(trainer))
        if processes.is_first and trainer.about:
            told = ", ".join(f"{name} {value}" for name, value in trainer.about.items())
            console.print(f"data: {config.data.card.use}, {told}", markup=False)
        for line in (*batch_lines(trainer), *proof_lines(trainer)):
            console.print(line, markup=False)
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


def batch_lines(trainer: Trainer) -> list[str]:
    """Tokens a step, how they are split up, and what a step costs."""
    settings, model = trainer.settings, trainer.model
    parts = trainer.split(trainer.processes.share(list(range(trainer.rows))), trainer.rows)
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
    counts = torch.tensor([sum(own), sum(all_places)], device=trainer.device)
    tokens, places = trainer.processes.sum(counts).tolist()
    stream = isinstance(trainer.splits["train"], StreamSplit)
    unit = f"rows of {trainer.splits['train'].context}" if stream else "samples"
    epoch, judged = len(trainer.splits["train"]), len(trainer.splits["val"])
    return [
        f"a step: {trainer.rows} {unit} = {tokens:,} tokens and {places - tokens:,} places of padding "
        f"({1 - tokens / places:.1%}), in {trainer.processes.count} process(es), {len(parts)} micro-batch(es) of at most "
        f"{len(parts[0])} {unit.split()[0]} each",
        f"the run: {settings.steps:,} steps, {settings.steps * trainer.rows / epoch:.2f} epochs of {epoch:,} "
        f"{unit.split()[0]}; {judged:,} to validate",
        f"arithmetic: {scaled(flops_per_token(model) * tokens, 'FLOP')} a step",
        f"precision {trainer.choices.precision}, {'compiled' if trainer.choices.compile else 'eager'}, "
        f"on {trainer.device.type}" + (f" ({trainer.choices.note})" if trainer.choices.note else ""),
        "memory, estimated: " + ", ".join(f"{name} {scaled(size, 'B')}" for name, size in estimate.items()),
    ]


def proof_lines(trainer: Trainer) -> list[str]:
    """Why no target can reach its predictor: by the form of the graph, and by search on the first batch."""
    lines = []
    places = trainer.splits["train"].plan(trainer.settings.seed, 0, trainer.rows)[:4]
    sets = make_batch(trainer.splits["train"], places, trainer.tasks).sets
    for name, core in trainer.model.cores.items():
        tokens = sets[name].tokens
        patterns = list(dict.fromkeys(core.graphs))
        form = all(graph.is_causal() for graph in patterns)
        known = reach(core.graphs, tokens)
        ahead = int(torch.triu(known, diagonal=1).sum())
        lines.append(
            f"no leak in {name}: after {len(core.graphs)} layers of {len(patterns)} graph(s), {ahead} of "
            f"{known.numel():,} pairs reach ahead in {len(tokens.sample)} rows searched, and no judged token reaches its target"
            + ("; every graph is causal by its form, so this holds for all batches" if form else "")
        )
    return lines
