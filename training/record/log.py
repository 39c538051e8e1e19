"""The log of training: clock, mean loss, learning rates, throughput; on the terminal and in `metrics.jsonl`."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...data.processes import Processes
from ...models.batch import Batch
from ..checkpoints.files import NotFiniteError
from ..checkpoints.state import Unreported
from .metrics_file import MetricsFile
from .progress import Progress, peak_memory
from .throughput import Throughput


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
