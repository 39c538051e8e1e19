"""The progress line: redrawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Mapping

import torch
from rich.table import Table

from ...tokenizers.files.printing import plain_console, printable

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
