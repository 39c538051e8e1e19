"""What must hold on a GPU: kernels, losses, no waits, no recompiles."""

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
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import Experiment
from gpu_kernels import WAYS, compared, ctc_compared, verdict
from gpu_parts.bench import MIXES, ROOT, Bench, file_of, scratch
from stand_in import quickly_encoded, small, without_chance
from torch import Tensor


def kernels(bench: Bench) -> None:
    """Every way of attending in both types, and CTC."""
    n, ways = (12, list(WAYS)[::4]) if bench.small else (300, list(WAYS))
    for name in ways:
        for precision in ("float32", "bfloat16"):
            bench.measure(f"{name}, {precision}", functools.partial(compared, WAYS[name], n, bench.device, precision))
    bench.measure("CTC", functools.partial(ctc_compared, 24 if bench.small else 200, bench.device))


def losses(bench: Bench) -> None:
    """The first steps of every configuration, here and on the CPU."""
    for name in MIXES[::4] if bench.small else MIXES:
        bench.measure(name, functools.partial(losses_compared, bench, name))


def losses_compared(bench: Bench, name: str) -> dict[str, Any]:
    """How far the losses of float32 here are from the CPU's, and those of bfloat16, as shares."""

    def run(device: torch.device, precision: str) -> list[float]:
        with scratch() as folder:
            config = load_config(file_of(name, folder))
            chosen = small(config) if bench.small else quickly_encoded(config)
            overrides = [*chosen, *without_chance(config), f"training.precision={precision}", "data.too_long=drop"]
            trainer = Bench(device).trainer(name, overrides, folder)
            return [float(updated(trainer, step)) for step in range(3 if bench.small else 20)]

    expected = run(torch.device("cpu"), "float32")
    row: dict[str, Any] = {"first_loss": expected[0], "last_loss": expected[-1]}
    for precision in ("float32", "bfloat16"):
        shares = [abs(loss - true) / abs(true) for loss, true in zip(run(bench.device, precision), expected)]
        row |= {f"{precision}_first": shares[0], f"{precision}_most": max(shares)}
    limits = {"float32_first": 1e-4, "float32_most": 0.02, "bfloat16_first": 0.01, "bfloat16_most": 0.1}
    return row | {"verdict": verdict(row, limits)}


def waits(bench: Bench) -> None:
    """Steps as between two logs: nothing may wait for the GPU."""
    for name in MIXES[:1] if bench.small else (*MIXES, "vision/cifar10_gpu", "speech/speech_commands"):
        bench.measure(name, functools.partial(waits_of, bench, name))


def waits_of(bench: Bench, name: str) -> dict[str, Any]:
    """Where a few steps wait, and how often a step."""
    with scratch() as folder:
        config = load_config(file_of(name, folder))
        trainer = bench.trainer(
            name, [*(small if bench.small else quickly_encoded)(config), "data.too_long=drop"], folder, 600
        )
        for step in range(3):
            updated(trainer, step)
        bench.wait()
        with synchronisations(bench.device) as found:
            for step in range(3, 8):
                updated(trainer, step)
        places = {place: count / 5 for place, count in found.most_common()}
    told = "; ".join(f"{place} waits {count:g} times a step" for place, count in places.items())
    return {"waits_per_step": sum(places.values()), "places": places, "verdict": told or "fine"}


@contextmanager
def synchronisations(device: torch.device) -> Iterator[Counter[str]]:
    """Counts where of our files something is called that waits for the GPU: torch warns of it."""
    found: Counter[str] = Counter()

    def note(message: Any, *_: Any) -> None:
        if "called a synchronizing" in str(message):
            frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(ROOT)]
            ours = [frame for frame in frames if ".venv" not in frame.filename and frame.filename != __file__]
            found[f"{Path(ours[-1].filename).relative_to(ROOT)}:{ours[-1].lineno}" if ours else "somewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def recompiles(bench: Bench) -> None:
    """Steps of changing shapes, compiled; and not, where FlexAttention is compiled alone."""
    for name in ("lm/shakespeare_char",) if bench.small else (*MIXES, "vision/cifar10_gpu", "speech/speech_commands"):
        bench.measure(f"{name}, compiled", functools.partial(recompiles_of, bench, name, True))
    for name in ("quickstart",):
        bench.measure(f"{name}, not compiled", functools.partial(recompiles_of, bench, name, False))


def recompiles_of(bench: Bench, name: str, compiled: bool) -> dict[str, Any]:
    """How many graphs are made in how many steps, after which step none is, where graphs are broken, and why anew."""
    with scratch() as folder, reasons() as told:
        config = load_config(file_of(name, folder))
        overrides = [*(small if bench.small else quickly_encoded)(config), "data.too_long=drop"]
        trainer = bench.trainer(name, overrides, folder, 640, compiled)
        counters, graphs = torch._dynamo.utils.counters, []
        counters.clear()
        for step in range(4 if bench.small else 30):
            updated(trainer, step)
            graphs.append(counters["stats"]["unique_graphs"])
    new = [step for step, (before, now) in enumerate(zip([0, *graphs], graphs), 1) if now > before]
    breaks = sum(counters["graph_break"].values())
    row = {"steps": len(graphs), "graphs": graphs[-1], "last_new_at_step": max(new, default=0), "breaks": breaks,
           "gave_up": any("recompile_limit" in reason for reason in told), "reasons": told[:4]}  # fmt: skip
    limits = {"graphs": 8, "last_new_at_step": 15, "breaks": 0, "gave_up": 0}
    return row | {"verdict": verdict(row, limits)}


@contextmanager
def reasons() -> Iterator[list[str]]:
    """Collects why torch compiles something again, and where it gives up."""
    found: list[str] = []

    class Collects(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = [line.strip() for line in record.getMessage().splitlines() if line.strip()]
            found.append(" | ".join(lines[:4])[:300])

    collects, loggers = (
        Collects(),
        [logging.getLogger(f"torch._dynamo.{name}") for name in ("guards.__recompiles", "convert_frame")],
    )
    torch._logging.set_logs(recompiles=True)
    for logger in loggers:
        logger.addHandler(collects)
    try:
        yield found
    finally:
        for logger in loggers:
            logger.removeHandler(collects)
        torch._logging.set_logs()


def updated(made: Experiment, step: int) -> Tensor:
    """One update, whichever it is."""
    made.trainer.step = step
    return made.trainer.update()
