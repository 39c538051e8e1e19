"""Correctness on a GPU: kernels and losses; no synchronisation and no recompilation between log lines."""

from __future__ import annotations

import functools
import logging
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from chopmix.experiment.assemble import Experiment
from chopmix.experiment.settings.config import load_config
from gpu_kernels import WAYS, compared, ctc_compared, verdict
from gpu_parts.bench import MIXES, ROOT, Bench, file_of, scratch
from stand_in import quickly_encoded, small, without_chance
from torch import Tensor


def kernels(bench: Bench) -> None:
    """Compares every attention case in float32 and bfloat16, and CTC."""
    n, ways = (12, list(WAYS)[::4]) if bench.small else (300, list(WAYS))
    for name in ways:
        for precision in ("float32", "bfloat16"):
            bench.measure(f"{name}, {precision}", functools.partial(compared, WAYS[name], n, bench.device, precision))
    bench.measure("CTC", functools.partial(ctc_compared, 24 if bench.small else 200, bench.device))


def losses(bench: Bench) -> None:
    """Compares the losses of the first steps of every configuration with those of the CPU."""
    for name in MIXES[::4] if bench.small else MIXES:
        bench.measure(name, functools.partial(losses_compared, bench, name))


def losses_compared(bench: Bench, name: str) -> dict[str, Any]:
    """Returns the relative differences of the losses (float32 and bfloat16) from those of the CPU in float32."""

    def run(device: torch.device, precision: str) -> list[float]:
        with scratch() as folder:
            config = load_config(file_of(name, folder))
            shortened = small(config) if bench.small else quickly_encoded(config)
            overrides = [*shortened, *without_chance(config), f"training.precision={precision}", "data.too_long=drop"]
            trainer = Bench(device).trainer(name, overrides, folder)
            return [float(update_at(trainer, step)) for step in range(3 if bench.small else 20)]

    expected = run(torch.device("cpu"), "float32")
    row: dict[str, Any] = {"first_loss": expected[0], "last_loss": expected[-1]}
    for precision in ("float32", "bfloat16"):
        shares = [abs(loss - target) / abs(target) for loss, target in zip(run(bench.device, precision), expected)]
        row |= {f"{precision}_first": shares[0], f"{precision}_most": max(shares)}
    limits = {"float32_first": 1e-4, "float32_most": 0.02, "bfloat16_first": 0.01, "bfloat16_most": 0.1}
    return row | {"verdict": verdict(row, limits)}


def waits(bench: Bench) -> None:
    """Runs steps as between two log lines; none of them may wait for the GPU."""
    for name in MIXES[:1] if bench.small else (*MIXES, "vision/cifar10_gpu", "speech/speech_commands"):
        bench.measure(name, functools.partial(waits_of, bench, name))


def waits_of(bench: Bench, name: str) -> dict[str, Any]:
    """Returns the lines of code that wait for the GPU, and how often per step."""
    with scratch() as folder:
        config = load_config(file_of(name, folder))
        trainer = bench.trainer(
            name, [*(small if bench.small else quickly_encoded)(config), "data.too_long=drop"], folder, 600
        )
        for step in range(3):
            update_at(trainer, step)
        bench.wait()
        with synchronisations(bench.device) as counts:
            for step in range(3, 8):
                update_at(trainer, step)
        lines = {line: count / 5 for line, count in counts.most_common()}
    verdict = "; ".join(f"{line} waits {count:g} times per step" for line, count in lines.items())
    return {"waits_per_step": sum(lines.values()), "places": lines, "verdict": verdict or "fine"}


@contextmanager
def synchronisations(device: torch.device) -> Iterator[Counter[str]]:
    """Counts the lines of our files (`file:line`) that wait for the GPU, from the warnings of torch."""
    counts: Counter[str] = Counter()

    def note(message: Any, *_: Any) -> None:
        if "called a synchronizing" in str(message):
            frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT)]
            ours = [frame for frame in frames if ".venv" not in frame.filename and frame.filename != __file__]
            counts[f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "somewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield counts
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def recompiles(bench: Bench) -> None:
    """Runs steps of changing shapes, compiled and eager (then only FlexAttention is compiled)."""
    for name in ("lm/shakespeare_char",) if bench.small else (*MIXES, "vision/cifar10_gpu", "speech/speech_commands"):
        bench.measure(f"{name}, compiled", functools.partial(recompiles_of, bench, name, True))
    for name in ("quickstart",):
        bench.measure(f"{name}, not compiled", functools.partial(recompiles_of, bench, name, False))


def recompiles_of(bench: Bench, name: str, compiled: bool) -> dict[str, Any]:
    """Returns the number of compiled graphs and of steps, the last step that compiled one, the number of graph breaks,
    and the reasons of recompilations."""
    with scratch() as folder, recompilations() as reasons:
        config = load_config(file_of(name, folder))
        overrides = [*(small if bench.small else quickly_encoded)(config), "data.too_long=drop"]
        trainer = bench.trainer(name, overrides, folder, 640, compiled)
        counters, graphs = torch._dynamo.utils.counters, []
        counters.clear()
        for step in range(4 if bench.small else 30):
            update_at(trainer, step)
            graphs.append(counters["stats"]["unique_graphs"])
    new = [step for step, (before, now) in enumerate(zip([0, *graphs], graphs), 1) if now > before]
    breaks = sum(counters["graph_break"].values())
    row = {"steps": len(graphs), "graphs": graphs[-1], "last_new_at_step": max(new, default=0), "breaks": breaks,
           "gave_up": any("recompile_limit" in reason for reason in reasons), "reasons": reasons[:4]}  # fmt: skip
    limits = {"graphs": 8, "last_new_at_step": 15, "breaks": 0, "gave_up": 0}
    return row | {"verdict": verdict(row, limits)}


@contextmanager
def recompilations() -> Iterator[list[str]]:
    """Collects why torch recompiles functions, and where it reaches the limit of recompilations."""
    reasons: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            reasons.append(" | ".join(lines[:4])[:300])

    collector = Collector()
    loggers = [logging.getLogger(f"torch._dynamo.{name}") for name in ("guards.__recompiles", "convert_frame")]
    torch._logging.set_logs(recompiles=True)
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield reasons
    finally:
        for logger in loggers:
            logger.removeHandler(collector)
        torch._logging.set_logs()


def update_at(experiment: Experiment, step: int) -> Tensor:
    """Runs the update of this step and returns its loss."""
    experiment.trainer.step = step
    return experiment.trainer.update()
