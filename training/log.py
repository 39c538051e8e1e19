"""What a run in training tells: lines of progress, throughput, and `metrics.jsonl`."""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import StrictFloat, StrictInt, TypeAdapter, ValidationError
from rich.table import Table
from torch import Tensor

from ..data.processes import Processes
from ..files.printing import plain_console, printable
from ..files.reading import DataError, read_lines
from ..files.records import parse_json
from ..files.writing import not_written, write_text
from ..inference.pages import Samples, page
from ..models.batch import Batch
from ..models.tokens import PADDING
from .checkpoints import NotFiniteError, Unreported
from .logger import Loggers


class Log:
    """Collects losses and counts of steps, and reports them every `logging.every` steps. Losses stay on the device
    until a line is due, so that no step waits for them. The clock counts training alone, no evaluation or saving.

    `flops` gives the FLOPs of a micro-batch (`accounting.Costs.flops`).
    """

    record: MetricsFile
    """The file that lines go to; set before the first line."""

    def __init__(self, progress: Progress, processes: Processes, flops: Callable[[Batch], float]):
        self.progress, self.processes, self.flops = progress, processes, flops
        self.seconds, self.started = 0.0, time.perf_counter()
        self.losses: list[Tensor] = []
        self.throughput, self.unreported = Throughput(), Unreported()

    def start_clock(self) -> None:
        """Restart the clock: time since the last line (an evaluation, say) is not training."""
        self.started = time.perf_counter()

    def resume(self, seconds: float, unreported: Unreported) -> None:
        """Go on with the clock (in seconds) and the unreported steps of a checkpoint."""
        self.seconds, self.unreported, self.throughput, self.losses = seconds, unreported, Throughput(), []

    def read(self, batches: Sequence[Batch], waited: float) -> None:
        """Count tokens, padding and FLOPs of a step's micro-batches, and the seconds `waited` for them."""
        self.throughput = self.throughput.plus(batches, self.flops, waited)

    def add(self, loss: Tensor) -> None:
        """Keep this process's part of a step's mean loss, a scalar on the device."""
        self.losses.append(loss)

    def report(self, step: int, rates: Mapping[str, float]) -> None:
        """Write one line for the steps since the last: their mean loss, the learning rates in use (`rates`), the
        throughput. Raises NotFiniteError where the loss is infinite or NaN."""
        recent = self.processes.sum(torch.stack(self.losses).double())
        before, self.unreported = self.unreported, Unreported()
        loss = torch.cat([recent.new_tensor(before.losses), recent]).mean().item()  # waits for the device
        seconds = time.perf_counter() - self.started
        self.seconds += seconds
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        read, self.throughput = self.throughput.over(self.processes), Throughput()
        figures = {
            "train/loss": loss,
            **rates,
            "train/tokens_per_second": read.tokens / seconds,
            "train/flops_per_second": read.flops / seconds / self.processes.world_size,
            "train/seconds_per_step": seconds / len(self.losses),
            "train/peak_memory_bytes": peak_memory(self.processes.device),
            "train/padding": 1 - (read.tokens + before.tokens) / max(read.slots + before.slots, 1),
            "train/waited": read.waited / self.processes.world_size / seconds,
        }
        self.losses.clear()
        gc.collect(0)
        self.write(step, figures)
        if self.processes.is_first:
            self.progress.show(step, figures, self.processes.device)
        self.start_clock()

    def put_off(self) -> None:
        """Keep the steps since the last line in `unreported`, where a run is saved between two lines: after resuming
        the next line counts them too. Raises NotFiniteError where a loss is infinite or NaN."""
        if not self.losses:
            return
        read, before = self.throughput.over(self.processes), self.unreported
        every = [*before.losses, *self.processes.sum(torch.stack(self.losses).double()).tolist()]
        if not all(map(math.isfinite, every)):
            raise NotFiniteError(f"the loss is {every[-1]}")
        self.unreported = Unreported(losses=every, tokens=before.tokens + read.tokens, slots=before.slots + read.slots)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Write one line of `metrics.jsonl`."""
        self.record.write(step, self.seconds, figures)

    def say(self, text: str) -> None:
        """Print a line that stays, in the first process alone."""
        if self.processes.is_first:
            self.progress.say(text)

    def show(self, tables: Sequence[Table], lines: Sequence[str]) -> None:
        """Print tables and lines that stay, in the first process alone."""
        if self.processes.is_first:
            self.progress.show_tables(*tables)
        for line in lines:
            self.say(line)


class MetricsFile:
    """Writer of `metrics.jsonl`, and of the same metrics to the `loggers`, to be used in `with`.

    The lines of the current step are kept in memory (`here`) and saved in its checkpoint, so that after a kill the file
    is cut back to what the checkpoint contains, and every step is in it once.
    """

    def __init__(
        self, folder: Path, *, step: int, lines: Sequence[Mapping[str, float]], loggers: Loggers | None = None,
        writes: bool = True, check: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        """`step` is the run's present step, `lines` those of that step in its checkpoint. The file is cut back to them.
        If `writes` is false (all processes but the first), no file is opened. `check` is called before anything is
        written: it raises OSError if the folder was replaced. Raises DataError for a file of metrics that cannot be
        read."""
        self.path, self.file, self.loggers, self.check = folder / "metrics.jsonl", None, loggers, check
        self.step, self.here = step, [dict(line) for line in lines]
        if writes:
            previous = read_metrics(self.path, strict=False) if self.path.exists() else []
            kept = [line for line in previous if line["step"] < step]  # a killed run may have written more
            check()
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*kept, *self.here]), within=folder)
            self.file = open(self.path, "a")

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Append one line: `{"step": step, "seconds": seconds, **metrics}`; pass the metrics to the loggers. Raises
        OSError naming the file if it cannot be written."""
        if step != self.step:
            self.step, self.here = step, []
        self.here.append({"step": step, "seconds": round(seconds, 3), **metrics})
        if not self.file:
            return
        self.check()
        try:
            self.file.write(json.dumps(self.here[-1]) + "\n")
            self.file.flush()
        except OSError as error:
            raise not_written(self.path, error) from error
        if self.loggers:
            self.loggers.call("metrics", step, metrics)

    def lines_of(self, step: int) -> list[dict[str, float]]:
        """The lines of a step for its checkpoint; none unless it is the current one."""
        return self.here if self.step == step else []

    def samples(self, step: int, samples: Samples) -> None:
        """Keep generated samples: as a page in `RUN/sheets` if they are more than text, and in the loggers."""
        if not self.file:
            return
        if samples.rows:
            self.check()
            folder = self.path.parent
            write_text(folder / "sheets" / f"step-{step:08}.html", page(f"{folder.name}, step {step:,}", samples.rows),
                       within=folder)  # fmt: skip
        if self.loggers:
            self.loggers.call("samples", step, samples)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception) -> None:
        if self.file:
            with suppress(OSError):  # on a full disk what could not be written fails a second time
                self.file.close()
        if self.file and self.loggers:
            self.loggers.call("close")


Line = TypeAdapter(dict[str, StrictInt | StrictFloat])


def read_metrics(file: Path, strict: bool = True) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`, in order. A line that is no mapping of names to numbers, or has no step, raises
    DataError; without `strict` it is skipped."""
    found = []
    for number, line in enumerate(read_lines(file), start=1):
        try:
            value = Line.validate_python(parse_json(line, f"{file}, line {number}"))
            if not isinstance(value.get("step"), int):
                raise DataError(f"{file}, line {number}: it names no step")
            found.append(value)
        except (DataError, ValidationError) as error:
            if strict:
                told = str(error) if isinstance(error, DataError) else f"{file}, line {number}: no numbers by name"
                raise DataError(told) from None
    return found


PEAK_FLOPS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12,
    "RTX 4090": 165e12, "B200": 2250e12,
}  # fmt: skip
"""Peak bfloat16 FLOP/s of dense matrix products as the maker states them, by a part of the device's name; the first
that fits counts."""


def peak_flops(device: torch.device) -> float | None:
    """The stated peak FLOP/s of a GPU; None where it is unknown and on a CPU: FLOP/s is shown there instead of MFU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """The most bytes held so far: by tensors on the GPU, on a CPU by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo


def duration(seconds: float) -> str:
    """3725 -> '1:02:05'."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def scaled(value: float, unit: str) -> str:
    """A value with a decimal prefix: 1_234_567 of unit B -> '1.23 MB', 12 -> '12 B'."""
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}{unit}"
    return f"{value:.3g} {unit}"


def shown_rates(metrics: Mapping[str, float]) -> str:
    """The learning rates: `rate 1.00e-03`, or where other groups have theirs `rate 2.00e-02 (heads 8.0e-03)`."""
    own = {name.rpartition("/")[2]: rate for name, rate in metrics.items() if name.startswith("train/learning_rate/")}
    others = f" ({', '.join(f'{name} {rate:.1e}' for name, rate in own.items())})" if own else ""
    return f"rate {metrics['train/learning_rate']:.2e}{others}"


class Progress:
    """The progress line of a run of `steps` steps, on `stream` (by default standard error). Where that is no terminal,
    a plain line is written every `quiet_seconds` or less often, and at the last step."""

    def __init__(self, steps: int, *, quiet_seconds: float = 10.0, stream=None):
        self.stream = stream or sys.stderr
        self.steps, self.live = steps, self.stream.isatty()
        self.quiet_seconds, self.written = quiet_seconds, -1e9

    def show(self, step: int, metrics: Mapping[str, float], device: torch.device) -> None:
        """Redraw the line from the metrics of `Log.report`."""
        if not self.live and time.monotonic() - self.written < self.quiet_seconds and step < self.steps:
            return
        self.written = time.monotonic()
        flops = metrics["train/flops_per_second"]
        peak = peak_flops(device)
        left = (self.steps - step) * metrics["train/seconds_per_step"]
        line = "  ".join([
            f"step {step:,}/{self.steps:,}", f"loss {metrics['train/loss']:.4f}",
            shown_rates(metrics), scaled(metrics["train/tokens_per_second"], "tokens/s"),
            f"MFU {flops / peak:.1%}" if peak else scaled(flops, "FLOP/s"),
            scaled(metrics["train/peak_memory_bytes"], "B"), f"{duration(left)} left",
        ])  # fmt: skip
        if self.live:
            width = os.get_terminal_size(self.stream.fileno()).columns
            print(f"\r\033[K{line[: width - 1]}", end="", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Write a text that stays, above the line."""
        text = printable(text)
        print(f"\r\033[K{text}" if self.live else text, file=self.stream, flush=True)

    def show_tables(self, *tables: Table) -> None:
        """Write tables, above the line."""
        console = plain_console(file=self.stream, width=None if self.live else 120)
        for table in tables:
            console.print(table)


@dataclass(frozen=True)
class Throughput:
    """Counts of what was read, summed over micro-batches and over all sets (encoder and decoder)."""

    tokens: int = 0
    slots: int = 0
    """Tokens and padding."""
    flops: float = 0.0
    """FLOPs, forward and backward; see `accounting.Costs`."""
    waited: float = 0.0
    """Seconds in which training waited for data."""

    def plus(self, batches: Sequence[Batch], flops: Callable[[Batch], float], waited: float) -> Throughput:
        """These counts and those of some micro-batches, for which training waited `waited` seconds."""
        read = [batch for batch in batches if batch.real]
        samples = [planned.tokens.sample for batch in read for planned in batch.sets.values()]
        return Throughput(
            self.tokens + sum(int((sample != PADDING).sum()) for sample in samples),
            self.slots + sum(sample.numel() for sample in samples),
            self.flops + sum(map(flops, read)),
            self.waited + waited,
        )

    def over(self, processes: Processes) -> Throughput:
        """The sums over all processes."""
        tokens, slots, flops, waited = processes.agree([self.tokens, self.slots, self.flops, self.waited])
        return Throughput(int(tokens), int(slots), flops, waited)
