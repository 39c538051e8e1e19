"""Speed of training and generation, compared with a matrix product."""

from __future__ import annotations

import functools
import statistics
import time
from typing import Any

import torch
from chopmix.experiment.assemble import Experiment
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from chopmix.training.accounting import peak_flops, peak_memory
from chopmix.training.checkpoints import Unreported
from chopmix.training.objective import autocast
from gpu_parts.bench import SHAPES, Bench, Shape, scratch
from gpu_parts.sound import update_at
from torch.utils.flop_counter import FlopCounterMode


def speed(bench: Bench) -> None:
    """Measures every shape, compiled and eager, compared with a matrix product."""
    product: list[float] = []
    for name, shape in SHAPES.items():
        for compiled in (False, True) if not bench.small or shape.name == "lm/gpt2_124m" else (False,):
            how = "compiled" if compiled else "not compiled"
            bench.measure(f"{name}, {how}", functools.partial(speed_of, bench, shape, compiled, product))
        bench.measure(f"{name}, operations", functools.partial(operations_of, bench, shape))


def speed_of(bench: Bench, shape: Shape, compiled: bool, product: list[float]) -> dict[str, Any]:
    """Returns tokens per second with planning and transfers as in training (`waited`: the share of the time spent
    waiting for data), the time of a batch that is already planned, and operations counted as by PaLM
    (`training/accounting.py`)."""
    product[:] = product or [product_flops(bench)]
    steps = 2 if bench.small else 10
    with scratch() as folder:
        trainer = bench.trainer(shape.name, shape.options + shape.tiny * bench.small, folder, shape.samples, compiled)
        for step in range(steps):
            update_at(trainer, step)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        log = trainer.trainer.log
        log.resume(0.0, Unreported())
        seconds = [seconds_of(bench, trainer, range(n * steps, n * steps + steps)) for n in (1, 2, 3)]
        counted, count = log.throughput, 3 * steps
        share = trainer.trainer.loader.load(count + steps)
        trainer.trainer.loader.load = lambda step, stops=False: share
        planned = statistics.median(seconds_of(bench, trainer, range(steps)) for _ in range(3))
        memory = peak_memory(bench.device)
    flops, peak = counted.flops / count / statistics.median(seconds), peak_flops(bench.device)
    stated = {"mfu": flops / peak} if peak else {}
    return {"tokens_per_second": counted.tokens / count / statistics.median(seconds),
            "ms": 1000 * statistics.median(seconds), "planned_ms": 1000 * planned,
            "waited": counted.waited / count / statistics.mean(seconds), "flops_per_second": flops,
            "product_flops": product[0], "share_of_product": flops / product[0], "peak_memory_bytes": memory, **stated,
            "verdict": "measured"}  # fmt: skip


def operations_of(bench: Bench, shape: Shape) -> dict[str, Any]:
    """Counts the operations of a batch, forward and backward, by our formula and by torch. torch counts fewer if no
    gradient of the input is needed, and only operations that it has formulas for."""
    with scratch() as folder:
        trainer = bench.trainer(shape.name, shape.options + shape.tiny * bench.small, folder, shape.samples)
        learner, batch = trainer.trainer.learner, trainer.trainer.loader.load(0).micro_batches[0]
        on_device = learner.replica.objective.ready(batch, bench.device)
        with FlopCounterMode(display=False) as counter:
            sum(learner.replica.objective(on_device).values()).backward()
        ours, torchs = trainer.trainer.log.flops(batch), counter.get_total_flops()
    return {"flops": ours, "flops_by_torch": float(torchs), "share": torchs / ours, "verdict": "measured"}


def seconds_of(bench: Bench, trainer: Experiment, steps: range) -> float:
    """Returns the mean seconds of a step. The GPU is synchronised only before the first and after the last one."""
    bench.wait()
    start = time.perf_counter()
    for step in steps:
        update_at(trainer, step)
    bench.wait()
    return (time.perf_counter() - start) / len(steps)


def product_flops(bench: Bench) -> float:
    """Returns the operations per second of a large bfloat16 matrix product on this device."""
    side = 256 if bench.small else 8192
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(20):
        bench.wait()
        start = time.perf_counter()
        a @ b
        bench.wait()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(times[5:])


def generation(bench: Bench) -> None:
    """Measures generation by GPT-2 124M with one row and with several."""
    for rows in (1, 2) if bench.small else (1, 16):
        for precision in ("float32", "bfloat16"):
            bench.measure(
                f"GPT-2 124M, {rows} rows, {precision}", functools.partial(generation_of, bench, rows, precision)
            )


def generation_of(bench: Bench, rows: int, precision: str) -> dict[str, Any]:
    """Returns tokens per second, greedy, after prompts of 16 tokens. The weights are random: speed does not depend on
    them."""
    shape, tokens = SHAPES["GPT-2 124M, 12 x 1,024"], 8 if bench.small else 128
    with scratch() as folder:
        model = bench.trainer(shape.name, shape.options + shape.tiny * bench.small, folder).model.eval()
    prompts, times = torch.randint(200, (rows, 16)).tolist(), []
    for _ in range(2 if bench.small else 4):
        bench.wait()
        start = time.perf_counter()
        with torch.inference_mode(), autocast(bench.device, precision):
            session = Session.of_texts(model, prompts, input="text", task="lm", vocabulary=200)
            assert len(list(draw(session, tokens, Sampling(temperature=0)))) == tokens
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    return {
        "tokens_per_second": rows * tokens / seconds,
        "ms_per_token": 1000 * seconds / tokens,
        "verdict": "measured",
    }
