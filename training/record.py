"""What one sees while training: one line that renews itself on a terminal, plain lines elsewhere; and the files of record."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import StrictFloat, StrictInt, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from ..tokenizers.files.printing import printable
from ..tokenizers.files.reading import LARGE, DataError, read_text
from ..tokenizers.files.records import parse_json
from ..tokenizers.files.writing import write_text

PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12, "B200": 2250e12}
"""Dense bfloat16 matrix products per second that the maker states, by a part of the device's name."""


def peak_flops(device: torch.device) -> float | None:
    """The stated peak of a GPU; None where it is not known (and on a CPU): then FLOP/s is shown instead of MFU."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)


def peak_memory(device: torch.device) -> int:
    """The most bytes held so far: of the GPU where there is one, else of the process."""
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
    """1_234_567 -> '1.23 M' + unit."""
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{prefix}{unit}"
    return f"{value:.3g} {unit}"


def shown_rates(metrics: Mapping[str, float]) -> str:
    """The rates in use: `rate 1.00e-03`, or with a group of its own `rate 2.00e-02 (heads 8.0e-03)`."""
    own = {name.rpartition("/")[2]: rate for name, rate in metrics.items() if name.startswith("train/learning_rate/")}
    others = f" ({', '.join(f'{name} {rate:.1e}' for name, rate in own.items())})" if own else ""
    return f"rate {metrics['train/learning_rate']:.2e}{others}"


class Progress:
    """The progress line. Where the output is not a terminal it writes a plain line every `quiet_seconds` instead."""

    def __init__(self, steps: int, *, quiet_seconds: float = 10.0, stream=None):
        self.stream = stream or sys.stderr
        self.steps, self.live = steps, self.stream.isatty()
        self.quiet_seconds, self.written = quiet_seconds, -1e9

    def show(self, step: int, metrics: Mapping[str, float], device: torch.device) -> None:
        """Renew the line from the metrics of the last steps."""
        if not self.live and time.monotonic() - self.written < self.quiet_seconds and step < self.steps:
            return
        self.written = time.monotonic()
        flops = metrics["train/flops_per_second"]
        peak = peak_flops(device)
        left = (self.steps - step) * metrics["train/seconds_per_step"]
        parts = [
            f"step {step:,}/{self.steps:,}", f"loss {metrics['train/loss']:.4f}",
            shown_rates(metrics), scaled(metrics["train/tokens_per_second"], "tokens/s"),
            f"MFU {flops / peak:.1%}" if peak else scaled(flops, "FLOP/s"),
            scaled(metrics["train/peak_memory_bytes"], "B"), f"{duration(left)} left",
        ]  # fmt: skip
        line = "  ".join(parts)
        if self.live:
            width = os.get_terminal_size(self.stream.fileno()).columns
            print(f"\r\033[K{line[: width - 1]}", end="", file=self.stream, flush=True)
        else:
            print(line, file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Write something that stays, above the line."""
        text = printable(text)
        print(f"\r\033[K{text}" if self.live else text, file=self.stream, flush=True)

    def show_tables(self, *tables: Table) -> None:
        """Write tables, above the line."""
        console = Console(file=self.stream, width=None if self.live else 120)
        for table in tables:
            console.print(table)


class MetricsFile:
    """`metrics.jsonl`, and the same curves for TensorBoard; silent in processes that do not write.

    The lines of the step that is being worked on are kept (`here`): a checkpoint holds them, so that after a kill the file can be
    made to say what the checkpoint says, each step once.
    """

    def __init__(
        self, folder: Path, *, step: int, lines: Sequence[Mapping[str, float]], tensorboard: bool, writes: bool = True
    ):
        """`step` is where the run stands, `lines` those that its checkpoint holds of that step."""
        self.path, self.file, self.board = folder / "metrics.jsonl", None, None
        self.step, self.here = step, [dict(line) for line in lines]
        if writes:
            self._restore(step)
            self.file = open(self.path, "a")
        self.start, self.wants_board = step, tensorboard

    def _open_board(self) -> None:
        """TensorBoard's writer, at the first figures: it takes a second to import, and nobody waits for it at the start."""
        from torch.utils.tensorboard.writer import SummaryWriter

        self.board = SummaryWriter(self.path.parent / "tensorboard", purge_step=self.start + 1 if self.start else None)

    def _restore(self, step: int) -> None:
        """What was written before this step, then the lines of this step: whatever an interrupted run wrote after it goes."""
        kept = (
            [line for line in read_metrics(self.path, strict=False) if line["step"] < step]
            if self.path.exists()
            else []
        )
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in [*kept, *self.here]))

    def write(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """One flat object per line."""
        if step != self.step:
            self.step, self.here = step, []
        self.here.append({"step": step, "seconds": round(seconds, 3), **metrics})
        if not self.file:
            return
        self.file.write(json.dumps(self.here[-1]) + "\n")
        self.file.flush()
        if self.wants_board and not self.board:
            self._open_board()
        for name, value in metrics.items() if self.board else ():
            self.board.add_scalar(name, value, step)

    def lines_of(self, step: int) -> list[dict[str, float]]:
        """The lines of this step, if it is the one that is being worked on."""
        return self.here if self.step == step else []

    def text(self, step: int, text: str) -> None:
        """A text sample, for TensorBoard."""
        if self.board:
            self.board.add_text("sample", f"```\n{text}\n```", step)

    def __enter__(self) -> MetricsFile:
        return self

    def __exit__(self, *exception) -> None:
        """Close the files, whatever happened."""
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()


Line = TypeAdapter(dict[str, StrictInt | StrictFloat])


def read_metrics(file: Path, strict: bool = True) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl`. Raises DataError for one that is none, or passes over it where not `strict`."""
    found = []
    for number, line in enumerate(read_text(file, LARGE).splitlines(), start=1):
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
