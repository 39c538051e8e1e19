"""The training loader: loads this process's share of the global batch of each step, in micro-batches. A thread reads
the next step in advance."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from ..models.batch import Batch
from .processes import Processes
from .sampler import SampleIndex
from .split import Split


class Share(NamedTuple):
    """The part of a global batch that one process reads."""

    micro_batches: list[Batch]
    """At least one micro-batch, on the CPU, with the targets of all tasks."""
    targets: dict[str, float]
    """The number of targets of each task in the *global* batch, at least 1: the divisor of its summed loss."""
    stop_votes: float = 0.0
    """The number of processes that voted to stop before this step."""


class Loader:
    """Loads the training split step by step. It has no state that must be saved: the batch of a step is a function of
    the seed and the number of the step.

    `steps` is the length of the run. A micro-batch has at most `rows_per_micro_batch` samples or windows (None: the
    complete share of a process). Groups of `together` neighbouring samples stay in one micro-batch (2: pairs, for
    mixup). `skipped` contains (step, count) pairs: from this step on, `count` more global batches are skipped, because
    training diverged on them. With (100, 3), step 100 reads batch 103.
    """

    def __init__(
        self, split: Split, processes: Processes, *, seed: int, steps: int, rows_per_micro_batch: int | None = None,
        together: int = 1,
    ):  # fmt: skip
        self.split, self.processes, self.seed, self.steps = split, processes, seed, steps
        self.rows_per_micro_batch, self.together = rows_per_micro_batch, together
        self.skipped: list[tuple[int, int]] = []
        self.waited = 0.0
        """The seconds spent in `load` so far."""
        self.planner, self.ahead = ThreadPoolExecutor(1), {}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception) -> None:
        """Ends the thread."""
        self.planner.shutdown()

    def load(self, step: int, stops: bool = False) -> Share:
        """Returns this process's share of a step; every process must call it. `stops` is this process's vote to stop,
        which is counted in `Share.stop_votes`. An error while reading (such as too many bad samples) ends all
        processes: the process in which it occurs raises it, the others raise ElsewhereError."""
        started, batches, error = time.perf_counter(), [], None
        future = self.ahead.pop(step, None)
        try:
            batches = future.result() if isinstance(future, Future) else self.planned(step)
        except (ValueError, OSError, RuntimeError) as raised:
            error = raised
        local = [sum(batch.targets[name].count for batch in batches if batch.real) for name in self.split.tasks]
        *counts, votes = self.processes.agree([*local, float(stops)], error)
        if step + 1 < self.steps:
            self.ahead = {step + 1: self.planner.submit(self.planned, step + 1)}
        self.waited += time.perf_counter() - started
        targets = {name: max(float(n), 1.0) for name, n in zip(self.split.tasks, counts, strict=True)}
        return Share(batches, targets, votes)

    def forget(self) -> None:
        """Discards the batches that were read in advance. Must be called after `skipped` is changed."""
        self.ahead = {}

    def planned(self, step: int) -> list[Batch]:
        """Returns this process's micro-batches of a step. If the shares of the processes are uneven, a micro-batch can
        be without samples: it then contains the first sample of the global batch with `real=False`, and is not
        counted."""
        indices = self.split.plan(self.seed, self.batch_number(step))
        parts = self.parts(self.processes.share(indices, self.together), len(indices))
        batches = [self.split.batch(part or indices[:1], training=True) for part in parts]
        return [replace(batch, real=bool(part)) for batch, part in zip(batches, parts, strict=True)]

    def batch_number(self, step: int) -> int:
        """Returns the number of the global batch that a step reads: that of the step, or a later one if batches were
        `skipped`."""
        return step + sum(count for first, count in self.skipped if step >= first)

    def parts(self, indices: Sequence[SampleIndex], rows: int) -> list[list[SampleIndex]]:
        """Divides this process's indices into micro-batches of nearly equal size; their number is the same in every
        process. With at most 4 rows per micro-batch, 10 indices become 4, 3 and 3. `rows` is the number of indices in
        the global batch."""
        together = self.together
        groups = ceil(len(indices) / together)
        most = ceil(ceil(rows / together) / self.processes.world_size)
        parts = ceil(most / max(min((self.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(indices[start:end]) for start, end in zip([0, *ends], ends)]
