"""Progress of a training on a terminal: lines, and a bar with the remaining time."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence

import torch
from rich.table import Table

from ..files.printing import duration, log, plain_console, printable, scaled
from .accounting import peak_flops


def shown_rates(metrics: Mapping[str, float]) -> str:
    """Returns the learning rates in `metrics` as text: `rate 1.00e-03`, or with several parameter groups `rate 2.00e-02
    (heads 8.0e-03)`."""
    groups = {key.rpartition("/")[2]: rate for key, rate in metrics.items() if key.startswith("train/learning_rate/")}
    others = f" ({', '.join(f'{name} {rate:.1e}' for name, rate in groups.items())})" if groups else ""
    return f"rate {metrics['train/learning_rate']:.2e}{others}"


def fitting(parts: Sequence[str], columns: int) -> str:
    """Returns the first parts of a line, separated by two spaces, that fit into `columns` characters."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > columns:
            break
        line = f"{line}  {part}"
    return line[:columns]


def broken(line: str, columns: int) -> str:
    """Returns a line whose parts are separated by two spaces, broken before the parts that do not fit into `columns`
    characters. Further lines are indented. A line without such parts is returned unchanged."""
    lines = [""]
    for part in line.split("  ") if "  " in line.strip() else [line]:
        longer = f"{lines[-1]}  {part}" if lines[-1].strip() else lines[-1] + part
        if len(longer) > columns and lines[-1].strip():
            lines.append(f"    {part}")
        else:
            lines[-1] = longer
    return "\n".join(lines)


class Progress:
    """The progress line of a run of `steps` steps, on `stream` (by default standard error). On a terminal, one line is
    redrawn, which shows as many figures as fit; the remaining time is the first. Otherwise separate lines are written,
    at least `quiet_seconds` apart, and always one at the last step. With `shown=False`, nothing is written; the lines
    are only passed to the logger."""

    def __init__(self, steps: int, *, quiet_seconds: float = 10.0, stream=None, shown: bool = True):
        self.stream, self.shown = stream or sys.stderr, shown
        self.steps, self.live = steps, shown and self.stream.isatty()
        self.quiet_seconds, self.written = quiet_seconds, -1e9
        self.line = ""
        """The progress line that the terminal shows; empty if it shows none."""

    def show(self, step: int, metrics: Mapping[str, float], device: torch.device, left: float) -> None:
        """Redraws or writes the line from the metrics of `Log.report`. `left`: the remaining seconds."""
        if not self.live and time.monotonic() - self.written < self.quiet_seconds and step < self.steps:
            return
        self.written = time.monotonic()
        flops = metrics["train/flops_per_second"]
        peak = peak_flops(device)
        parts = [
            f"{duration(left)} left", f"step {step:,}/{self.steps:,}", f"loss {metrics['train/loss']:.4f}",
            shown_rates(metrics), scaled(metrics["train/tokens_per_second"], "tokens/s"),
            f"MFU {flops / peak:.1%}" if peak else scaled(flops, "FLOP/s"),
            scaled(metrics["train/peak_memory_bytes"], "B"),
        ]  # fmt: skip
        log("  ".join(parts))
        if self.live:
            self.line = fitting(parts, self.columns - 1)
            print(f"\r\033[K{self.line}", end="", file=self.stream, flush=True)
        elif self.shown:
            print("  ".join(parts), file=self.stream, flush=True)

    @property
    def columns(self) -> int:
        """The width of the terminal in characters."""
        return os.get_terminal_size(self.stream.fileno()).columns

    def keep(self) -> None:
        """Leaves the current progress line on the terminal, above the following lines, so that the history of the loss
        stays visible."""
        if self.live and self.line:
            print(file=self.stream, flush=True)
            self.line = ""

    def say(self, text: str) -> None:
        """Writes a text above the progress line, where it stays."""
        text = printable(text)
        log(text)
        if self.live:  # lines of metrics are broken between two metrics, not inside a number
            text = "\n".join(broken(line, self.columns) for line in text.split("\n"))
        if self.shown:
            print(f"\r\033[K{text}" if self.live else text, file=self.stream, flush=True)
        self.line = ""

    def show_tables(self, *tables: Table) -> None:
        """Writes tables above the progress line."""
        if not self.shown:
            return
        console = plain_console(file=self.stream, width=None if self.live else 120)
        for table in tables:
            console.print(table)


LINES = 10
"""About the number of lines of the log over which the time of a step is averaged."""


class RemainingTime:
    """Estimates the seconds until the end of a run of `steps` steps, which evaluates the model every `every` steps.

    The time of a step is a moving average: its weights decrease from line to line of the log, and each line counts as
    much as it has steps. The time of an evaluation is the mean of the evaluations so far. The report at the end counts
    as one more evaluation. Before the first evaluation only the steps are counted.
    """

    def __init__(self, steps: int, every: int):
        self.steps, self.every = steps, every
        self.trained, self.seconds = 0.0, 0.0
        """The numbers of steps and of their seconds, both with weights."""
        self.evaluations, self.evaluating = 0, 0.0
        """The number of evaluations, and their seconds."""

    def add_steps(self, count: int, seconds: float) -> None:
        """Adds the steps since the last line of the log."""
        kept = 1 - 1 / LINES
        self.trained, self.seconds = kept * self.trained + count, kept * self.seconds + seconds

    def add_evaluation(self, seconds: float) -> None:
        """Adds an evaluation."""
        self.evaluations, self.evaluating = self.evaluations + 1, self.evaluating + seconds

    def after(self, step: int) -> float:
        """Returns the seconds that remain after `step` steps, before the evaluation of this step."""
        evaluations = math.ceil(self.steps / self.every) - math.ceil(step / self.every) + 2  # with the report
        of_steps = (self.steps - step) * self.seconds / max(self.trained, 1e-9)
        return of_steps + evaluations * self.evaluating / max(self.evaluations, 1)
