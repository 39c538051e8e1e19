"""The first hour on a GPU: is it right, does it wait, does it compile again and again, how fast is it.

    python benchmarks/gpu.py                              # about 20 minutes, and the table
    python benchmarks/gpu.py --parts kernels,speed        # some of it
    python benchmarks/gpu.py --small --device cpu         # the script itself, in half a minute, without a GPU

    kernels      all ways of attending, and CTC, forward and backward: float32 beside the CPU's, bfloat16 beside float64
    losses       20 steps of several configurations: float32 beside the CPU's, and bfloat16
    waits        where the program waits for the GPU between two logs
    recompiles   what is compiled again while shapes change
    speed        tokens per second and share of a matrix product's speed, compiled and not; memory
    generation   tokens written per second

Each part runs in a process of its own. Every case is a row of `benchmarks/results/gpu.jsonl` as soon as it is measured;
what this dataset has measured at this commit is passed over the next time, unless `--again`. Data are drawn at random
(`stand_in.py`).
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import results
import torch
from chopmix.experiment.assembly.assemble import Experiment
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.settings.document import dumped
from chopmix.models.generation.sampling import Sampling, draw
from chopmix.models.generation.session import Session
from chopmix.models.pretrained.ast_audio import Ast
from chopmix.training.checkpoints.state import Unreported
from chopmix.training.objective import autocast
from chopmix.training.record.progress import peak_flops, peak_memory
from gpu_kernels import WAYS, compared, ctc_compared, verdict
from rich.console import Console
from rich.table import Table
from stand_in import quickly_encoded, small, trainer_of, without_chance
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
MIXES = ("quickstart", "lm/shakespeare_char", "vision/mnist", "speech/digit_strings_ctc",
         "speech/digit_strings_seq2seq", "t5/books", "bert/books")  # fmt: skip
"""Configurations whose losses are compared: every kind of input, of task, of attention."""


# ------------------------------------------------------------------------------------------------------ what is trained

VIT_S = {
    "inputs": {"image": {"use": "image", "patch_size": 16, "channels": 3, "size": 224}},
    "model": {"width": 384, "depth": 12, "heads": 6, "context": 197, "core_tokens": 1, "attention": "same_sample",
              "block": {"norm": {"use": "layer_norm", "epsilon": 1e-6},
                        "feed_forward": {"use": "gelu", "approximate": "none"}}},
    "tasks": {"label": {"use": "classification", "target": "label", "pooling": "class_token"}},
}  # fmt: skip
TREES = {"vit_s": VIT_S, "ast": Ast().tree()}
"""Models that no YAML of `configs/` trains: ViT-S of 224 pixels, AST as it was published, on 10.24 seconds."""

TINY = ["model.width=32", "model.depth=1", "model.heads=2"]


class Shape(NamedTuple):
    """A training step whose speed is measured."""

    name: str
    options: list[str]
    tiny: list[str]
    samples: int = 24


SHAPES = {
    "GPT-2 124M, 12 x 1,024": Shape(
        "lm/gpt2_124m", ["inputs.text.encoding=numbers", "inputs.text.vocabulary=50257",
                         "training.tokens_per_step=12288", "training.rows_per_micro_batch=null"],
        [*TINY, "model.context=32", "inputs.text.vocabulary=300", "training.tokens_per_step=64"],
    ),
    "ViT-S, 128 images": Shape("vit_s", ["training.samples_per_step=128"],
                               [*TINY, "inputs.image.size=32", "model.context=5", "training.samples_per_step=4"], 256),
    "AST, 16 sounds": Shape("ast", ["training.samples_per_step=16"],
                            [*TINY, "inputs.sound.length=64", "model.context=64", "training.samples_per_step=2"], 32),
    "quickstart, 64 samples": Shape("quickstart", [], ["model.depth=1", "training.samples_per_step=6"], 640),
}  # fmt: skip


def file_of(name: str, folder: Path) -> Path:
    """The YAML of this name; one is made of a tree."""
    if name not in TREES:
        return ROOT / "configs" / f"{name}.yaml"
    rest = {
        "data": {"dataset": "mnist"},
        "training": {"steps": 100_000, "samples_per_step": 1, "precision": "bfloat16"},
    }
    file = folder / f"{name}.yaml"
    file.write_text(dumped({**TREES[name], **rest}))
    return file


# -------------------------------------------------------------------------------------------------- how it is measured


@functools.cache
def here() -> dict[str, str]:
    """What rows are told apart by: the dataset, and the commit at which this process began."""
    return {"processor": results.processor(), "commit": results.commit()}


@dataclass(frozen=True)
class Bench:
    """Where and how it is measured, and which rows there are."""

    device: torch.device
    small: bool = False
    again: bool = False
    part: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """What this dataset has measured at this commit, the newest of each case."""
        mine = {**here(), "device": self.device.type, "small": self.small}
        found = [
            row for row in results.read_results("gpu") if all(row.get(key) == value for key, value in mine.items())
        ]
        return list({(row["part"], row["case"]): row for row in found}.values())

    def measure(self, case: str, measured: Callable[[], dict[str, Any]]) -> None:
        """Make the row of a case, where there is none. What fails is told in its row, and tried again the next time."""
        known = next((row for row in self.rows() if (row["part"], row["case"]) == (self.part, case)), None)
        if known and not self.again and "failed" not in known["verdict"]:
            return
        start = time.perf_counter()
        try:
            row = measured()
        except Exception as error:
            traceback.print_exc()
            row = {"verdict": f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        head = {"part": self.part, "case": case, "device": self.device.type, "small": self.small, **here()}
        results.write_results("gpu", [{**head, **row, "took": time.perf_counter() - start}])

    def trainer(
        self, name: str, overrides: Sequence[str], folder: Path, samples: int = 24, compiled: bool = False
    ) -> Experiment:
        """What trains a configuration here. On a CPU compiling stops before code is made: that takes minutes."""
        torch._dynamo.reset()
        gc.collect()  # a trainer before this one holds memory until then
        compiles = f"training.compile={str(compiled).lower()}"
        trainer = trainer_of(file_of(name, folder), self.device, folder / "run", [*overrides, compiles], samples)
        if compiled and self.device.type == "cpu":
            trainer.trainer.learner.replica.objective.compile(backend="aot_eager")
        return trainer

    def wait(self) -> None:
        """Until the GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for a run and its prepared data."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CHOPMIX_CACHE"] = str(Path(folder) / "cache")
        yield Path(folder)


# --------------------------------------------------------------------------------------------------------------- parts


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


def speed(bench: Bench) -> None:
    """Every shape compiled and not, beside a matrix product."""
    product: list[float] = []
    for name, shape in SHAPES.items():
        for compiled in (False, True) if not bench.small or shape.name == "lm/gpt2_124m" else (False,):
            how = "compiled" if compiled else "not compiled"
            bench.measure(f"{name}, {how}", functools.partial(speed_of, bench, shape, compiled, product))
        bench.measure(f"{name}, operations", functools.partial(operations_of, bench, shape))


def speed_of(bench: Bench, shape: Shape, compiled: bool, product: list[float]) -> dict[str, Any]:
    """Tokens per second with planning and transfers as in training (`waited`: the share of the time in which data were
    waited for), and of a batch that is planned already; operations as PaLM counts them (`training/accounting.py`)."""
    product[:] = product or [product_flops(bench)]
    steps = 2 if bench.small else 10
    with scratch() as folder:
        trainer = bench.trainer(shape.name, shape.options + shape.tiny * bench.small, folder, shape.samples, compiled)
        for step in range(steps):
            updated(trainer, step)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        log = trainer.trainer.log
        log.resume(0.0, Unreported())
        seconds = [seconds_of(bench, trainer, range(n * steps, n * steps + steps)) for n in (1, 2, 3)]
        counted, count = log.throughput, 3 * steps
        share = trainer.trainer.loader.load(count + steps)
        trainer.trainer.loader.load = lambda step, asked=False: share
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
    """The operations of a batch, forward and backward, as they are counted here and by torch, of what its formulas know
    (less than here where nothing asks for the gradient of the input)."""
    with scratch() as folder:
        trainer = bench.trainer(shape.name, shape.options + shape.tiny * bench.small, folder, shape.samples)
        learner, batch = trainer.trainer.learner, trainer.trainer.loader.load(0).micro_batches[0]
        there = learner.replica.objective.ready(batch, bench.device)
        with FlopCounterMode(display=False) as counter:
            sum(learner.replica.objective(there).values()).backward()
        ours, torchs = trainer.trainer.log.flops(batch), counter.get_total_flops()
    return {"flops": ours, "flops_by_torch": float(torchs), "share": torchs / ours, "verdict": "measured"}


def updated(made: Experiment, step: int) -> Tensor:
    """One update, whichever it is."""
    made.trainer.step = step
    return made.trainer.update()


def seconds_of(bench: Bench, trainer: Experiment, steps: range) -> float:
    """How long a step takes; the GPU is waited for only at the end of all."""
    bench.wait()
    start = time.perf_counter()
    for step in steps:
        updated(trainer, step)
    bench.wait()
    return (time.perf_counter() - start) / len(steps)


def product_flops(bench: Bench) -> float:
    """Operations per second of a large bfloat16 matrix product here."""
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
    """GPT-2 124M writes in one row, and in several."""
    for rows in (1, 2) if bench.small else (1, 16):
        for precision in ("float32", "bfloat16"):
            bench.measure(f"GPT-2 124M, {rows} rows, {precision}", functools.partial(written, bench, rows, precision))


def written(bench: Bench, rows: int, precision: str) -> dict[str, Any]:
    """Tokens per second, greedy, after 16 given ones. The weights are random: the speed does not depend on them."""
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


PARTS = {
    "kernels": kernels,
    "losses": losses,
    "waits": waits,
    "recompiles": recompiles,
    "speed": speed,
    "generation": generation,
}


# ------------------------------------------------------------------------------------------------------------ all of it


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line a case."""
    found = Table("part", "case", "figures", "verdict")
    hidden = {"part", "case", "device", "small", "verdict", "took", "places", "reasons", *results.MADE_ON}
    for row in sorted(rows, key=lambda row: list(PARTS).index(row["part"])):
        shown = {name: value for name, value in row.items() if name not in hidden}
        figures = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
        )
        found.add_row(row["part"], row["case"], ", ".join(figures), row["verdict"])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--small", action="store_true", help="tiny shapes, few steps, all in one process")
    options.add_argument("--again", action="store_true", help="also what was measured before")
    options.add_argument(
        "--results", type=Path, help="the folder that rows are kept in (with --small: by default none)"
    )
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if unknown := {*parts} - {*PARTS}:
        options.error(f"there is no part {', '.join(sorted(unknown))}; possible: {', '.join(PARTS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU; --small --device cpu tries the script without one")
    with tempfile.TemporaryDirectory() as folder:
        results.FOLDER = chosen.results or (Path(folder) if chosen.small else results.FOLDER)
        run(parts, Bench(torch.device(chosen.device), chosen.small, chosen.again))


def run(parts: Sequence[str], bench: Bench) -> None:
    """Some parts, each in a process of its own, so that one that brings the GPU into disorder takes no other with it;
    then the table."""
    if bench.small or len(parts) == 1:
        for part in parts:
            PARTS[part](replace(bench, part=part))
    else:
        for part in parts:
            rest = ["--device", bench.device.type, "--results", str(results.FOLDER), *["--again"] * bench.again]
            subprocess.run([sys.executable, __file__, "--parts", part, *rest], check=False)
    if bench.small or len(parts) > 1:
        Console(width=180).print(table([row for row in bench.rows() if row["part"] in parts]))


if __name__ == "__main__":
    main()
