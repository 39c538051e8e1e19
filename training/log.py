"""The log of a training run: what is measured between two lines, and `metrics.jsonl`."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, StrictFloat, StrictInt, TypeAdapter, ValidationError
from rich.table import Table
from torch import Tensor

from ..data.processes import Processes
from ..files.reading import DataError, read_lines
from ..files.records import parse_json
from ..files.writing import not_written, open_for_append, write_text
from ..inference.pages import Samples, page
from ..models.batch import Batch
from .accounting import Throughput, peak_memory
from .checkpoints import NotFiniteError, Unreported
from .logger import Loggers
from .progress import Progress, RemainingTime


class Log:
    """Collects the losses and the throughput of steps, and writes one line every `logging.every` steps. Losses stay on
    the device until a line is due, so no step waits for the device. `seconds` is the time of training so far, without
    evaluating and saving.

    `flops` is a function that returns the FLOPs of a micro-batch (`accounting.Costs.flops`).
    """

    record: MetricsFile
    """The file to which lines are written. This attribute must be set before the first line."""

    def __init__(
        self, progress: Progress, processes: Processes, flops: Callable[[Batch], float], remaining: RemainingTime
    ):  # fmt: skip
        self.progress, self.processes, self.flops, self.remaining = progress, processes, flops, remaining
        self.seconds, self.started = 0.0, time.perf_counter()
        self.losses: list[Tensor] = []
        self.throughput, self.unreported = Throughput(), Unreported()

    def start_clock(self) -> None:
        """Restarts the measurement of time. The time since the last line, such as the time of an evaluation, does not
        count as training."""
        self.started = time.perf_counter()

    def resume(self, seconds: float, unreported: Unreported) -> None:
        """Continues from a checkpoint, with its seconds of training and its unreported steps."""
        self.seconds, self.unreported, self.throughput, self.losses = seconds, unreported, Throughput(), []

    def count(self, batches: Sequence[Batch], waited: float) -> None:
        """Adds the tokens, slots and FLOPs of the micro-batches of a step, and the seconds that training `waited` for
        these micro-batches."""
        self.throughput = self.throughput.plus(batches, self.flops, waited)

    def add(self, loss: Tensor) -> None:
        """Adds the loss of a step: this process's part of the mean loss, a scalar on the device."""
        self.losses.append(loss)

    def report(self, step: int, rates: Mapping[str, float]) -> None:
        """Writes one line for the steps since the last line: the mean loss of these steps, the current learning rates
        (`rates`, by metric name) and the throughput. Every process must call this method. Raises NotFiniteError if the
        mean loss is infinite or NaN."""
        recent = self.processes.sum(torch.stack(self.losses).double())
        resumed, self.unreported = self.unreported, Unreported()
        loss = torch.cat([recent.new_tensor(resumed.losses), recent]).mean().item()  # waits for the device
        seconds = time.perf_counter() - self.started
        self.seconds += seconds
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}")
        totals, self.throughput = self.throughput.over(self.processes), Throughput()
        figures = {
            "train/loss": loss,
            **rates,
            "train/tokens_per_second": totals.tokens / seconds,
            "train/flops_per_second": totals.flops / seconds / self.processes.world_size,
            "train/seconds_per_step": seconds / len(self.losses),
            "train/peak_memory_bytes": peak_memory(self.processes.device),
            "train/padding": 1 - (totals.tokens + resumed.tokens) / max(totals.slots + resumed.slots, 1),
            "train/waited": totals.waited / self.processes.world_size / seconds,
        }
        self.remaining.add_steps(len(self.losses), seconds)
        self.losses.clear()
        gc.collect(0)
        self.write(step, figures)
        if self.processes.is_first:
            self.progress.show(step, figures, self.processes.device, self.remaining.after(step))
        self.start_clock()

    def keep_unreported(self) -> None:
        """Stores the steps since the last line in `unreported`, for a run that is saved between two lines. The first
        line after resuming then includes these steps. Raises NotFiniteError if a loss is infinite or NaN."""
        if not self.losses:
            return
        totals, resumed = self.throughput.over(self.processes), self.unreported
        losses = [*resumed.losses, *self.processes.sum(torch.stack(self.losses).double()).tolist()]
        if not all(map(math.isfinite, losses)):
            raise NotFiniteError(f"the loss is {losses[-1]}")
        self.unreported = Unreported(
            losses=losses, tokens=resumed.tokens + totals.tokens, slots=resumed.slots + totals.slots
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Writes one line with these metrics (`figures`) to `metrics.jsonl` and to the loggers."""
        self.record.write(step, self.seconds, figures)

    def say(self, text: str) -> None:
        """Prints a line above the progress line, where it stays. Only the first process prints."""
        if self.processes.is_first:
            self.progress.say(text)

    def keep(self) -> None:
        """Leaves the current progress line on the terminal."""
        if self.processes.is_first:
            self.progress.keep()

    def show(self, tables: Sequence[Table], lines: Sequence[str]) -> None:
        """Prints tables and then lines above the progress line. Only the first process prints."""
        if self.processes.is_first:
            self.progress.show_tables(*tables)
        for line in lines:
            self.say(line)


class MetricsFile:
    """A context manager that writes metrics to `metrics.jsonl` and to the `loggers`.

    The lines of the current step are also kept in memory (`here`) and saved in the checkpoint of this step. If a killed
    run continues from a checkpoint, the lines after the checkpoint are removed from the file. Therefore the file
    contains every step once.
    """

    def __init__(
        self, folder: Path, *, step: int, lines: Sequence[Mapping[str, float]], loggers: Loggers | None = None,
        writes: bool = True, check: Callable[[], None] = lambda: None,
    ):  # fmt: skip
        """Opens the file. `step` is the current step of the run, `lines` are the lines of this step that its checkpoint
        contains. An existing file keeps the lines of earlier steps, followed by `lines`. If `writes` is false (in all
        processes except the first), no file is opened. `check` is called before anything is written; it raises OSError
        if the folder was replaced. Raises DataError if an existing file cannot be read."""
        self.path, self.file, self.loggers, self.check = folder / "metrics.jsonl", None, loggers, check
        self.step, self.here = step, [dict(line) for line in lines]
        if writes:
            previous = read_metrics(self.path, strict=False) if self.path.exists() else []
            earlier = [line for line in previous if line["step"] < step]  # a killed run may have written more
            check()
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*earlier, *self.here]), within=folder)
            self.file = open_for_append(self.path)

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Appends the line `{"step": step, "seconds": seconds, **metrics}` and passes the metrics to the loggers.
        Raises OSError if the line cannot be written; the message names the file."""
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
            self.loggers.call("on_metrics", step, metrics)

    def lines_of(self, step: int) -> list[dict[str, float]]:
        """Returns the lines of a step, for its checkpoint. Returns an empty list if `step` is not the current step."""
        return self.here if self.step == step else []

    def write_page(self, step: int, samples: Samples) -> None:
        """Writes a page with generated samples into the folder `sheets`."""
        self.check()
        folder = self.path.parent
        content = page(f"{folder.name}, step {step:,}", samples.rows)
        write_text(folder / "sheets" / f"step-{step:08}.html", content, within=folder)

    def samples(self, step: int, samples: Samples) -> None:
        """Passes generated samples to the loggers. Samples with pictures or sounds are also written as an HTML page in
        `RUN/sheets`."""
        if not self.file:
            return
        if samples.rows:
            self.write_page(step, samples)
        if self.loggers:
            self.loggers.call("on_samples", step, samples)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception) -> None:
        if self.file:
            with suppress(OSError):  # on a full disk a failed write fails again when the file is closed
                self.file.close()
        if self.file and self.loggers:
            self.loggers.call("close")


Line = TypeAdapter(dict[str, Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | StrictFloat])


def read_metrics(file: Path, strict: bool = True) -> list[dict[str, float]]:
    """Returns the lines of a `metrics.jsonl`, in order. A line is bad if it is not a mapping from names to numbers
    (integers of at most 64 bits), or if it has no `step` of at least 0. For a bad line, raises DataError if `strict`;
    otherwise skips the line."""
    metrics = []
    for number, line in enumerate(read_lines(file), start=1):
        where = f"{file}, line {number}"
        try:
            value = Line.validate_python(parse_json(line, where))
            if not isinstance(value.get("step"), int) or value["step"] < 0:
                raise DataError(f"{where}: it has no step")
            metrics.append(value)
        except DataError:
            if strict:
                raise
        except ValidationError:
            if strict:
                raise DataError(
                    f"{where}: expected a mapping from names to numbers, integers of at most 64 bits"
                ) from None
    return metrics
