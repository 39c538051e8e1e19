"""The training loader: this process's share of every step's global batch, in micro-batches. A thread reads the next
step's meanwhile."""

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
    """What one process reads of a global batch."""

    micro_batches: list[Batch]
    """At least one, on the CPU, with every task's targets."""
    targets: dict[str, float]
    """How many targets each task has in the *global* batch, at least 1: the divisor of its summed loss."""
    stop_votes: float = 0.0
    """How many processes were asked to stop before this step."""


class Loader:
    """Loads the training split, a step at a time. Nothing of it needs to be saved: a step's batch is a function of the
    seed and the step's number.

    `steps` is the length of the run. A micro-batch has at most `rows_per_micro_batch` samples or windows (None: all of
    a process's share). Groups of `together` neighbouring samples stay in one micro-batch (2: pairs, for mixup).
    `skipped` holds (step, count) pairs: from that step on, `count` global batches are passed over, because training
    went wrong on them; with (100, 3), step 100 reads batch 103.
    """

    def __init__(
        self, split: Split, processes: Processes, *, seed: int, steps: int, rows_per_micro_batch: int | None = None,
        together: int = 1,
    ):  # fmt: skip
        self.split, self.processes, self.seed, self.steps = split, processes, seed, steps
        self.rows_per_micro_batch, self.together = rows_per_micro_batch, together
        self.skipped: list[tuple[int, int]] = []
        self.waited = 0.0
        """Seconds spent in `load` so far."""
        self.planner, self.ahead = ThreadPoolExecutor(1), {}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception) -> None:
        """End the thread."""
        self.planner.shutdown()

    def load(self, step: int, stops: bool = False) -> Share:
        """This process's share of a step; every process must call it. `stops` is this process's vote to stop, counted
        in `Share.stop_votes`. An error while reading (too many bad samples) stops all: the process that met it raises
        it, the others ElsewhereError."""
        started, found, error = time.perf_counter(), [], None
        planned = self.ahead.pop(step, None)
        try:
            found = planned.result() if isinstance(planned, Future) else self.planned(step)
        except (ValueError, OSError, RuntimeError) as wrong:
            error = wrong
        own = [sum(batch.targets[name].count for batch in found if batch.real) for name in self.split.tasks]
        *counts, votes = self.processes.agree([*own, float(stops)], error)
        if step + 1 < self.steps:
            self.ahead = {step + 1: self.planner.submit(self.planned, step + 1)}
        self.waited += time.perf_counter() - started
        return Share(found, {name: max(float(n), 1.0) for name, n in zip(self.split.tasks, counts, strict=True)}, votes)

    def forget(self) -> None:
        """Discard the batches that were read ahead: to be called where `skipped` has changed."""
        self.ahead = {}

    def planned(self, step: int) -> list[Batch]:
        """This process's micro-batches of a step. Where shares are uneven one may lack samples of its own: it is then
        the first sample of the global batch with `real=False`, which does not count."""
        places = self.split.plan(self.seed, self.batch_number(step))
        parts = self.parts(self.processes.share(places, self.together), len(places))
        found = [self.split.batch(part or places[:1], training=True) for part in parts]
        return [replace(batch, real=bool(part)) for batch, part in zip(found, parts, strict=True)]

    def batch_number(self, step: int) -> int:
        """The number of the global batch that a step reads: the step's own, or a later one where batches were
        `skipped`."""
        return step + sum(count for first, count in self.skipped if step >= first)

    def parts(self, places: Sequence[SampleIndex], rows: int) -> list[list[SampleIndex]]:
        """This process's places as micro-batches of nearly equal size, as many as in every other process: 10 places of
        which at most 4 are read at once become 4, 3 and 3. `rows` is how many places the global batch has."""
        together = self.together
        groups = ceil(len(places) / together)
        most = ceil(ceil(rows / together) / self.processes.world_size)
        parts = ceil(most / max(min((self.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(places[start:end]) for start, end in zip([0, *ends], ends)]
