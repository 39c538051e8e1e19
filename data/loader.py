"""This process's share of every step, as micro-batches; the next step's is planned meanwhile by a thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from ..models.batch import Batch
from .processes import Processes
from .sampler import Place
from .split import Split


class Share(NamedTuple):
    """What one process reads of a global batch."""

    micro_batches: list[Batch]
    """On the CPU, with every task's targets; never empty."""
    targets: dict[str, float]
    """How many targets each task has in the *global* batch, at least 1: what its summed loss is divided by."""
    stop_votes: float = 0.0
    """How many processes were asked to stop before this step."""


class Loader:
    """Loads the training split, a step at a time. Nothing of it needs to be saved: a step's batch is a function
    of its number.

    `rows_per_micro_batch` are read at once (None: all of a process's share), `together` is how many samples of a
    batch stay beside each other (2: pairs, for mixup). `skipped` are (step, count): from that step on batches are
    numbered so many higher, since training with those went wrong.
    """

    def __init__(
        self, split: Split, processes: Processes, *, seed: int, steps: int, rows_per_micro_batch: int | None = None,
        together: int = 1,
    ):  # fmt: skip
        self.split, self.processes, self.seed, self.steps = split, processes, seed, steps
        self.rows_per_micro_batch, self.together = rows_per_micro_batch, together
        self.skipped: list[tuple[int, int]] = []
        self.waited = 0.0
        """Seconds in which `load` was waited for, in all."""
        self.planner, self.ahead = ThreadPoolExecutor(1), {}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception) -> None:
        """End the thread."""
        self.planner.shutdown()

    def load(self, step: int, stops: bool = False) -> Share:
        """This process's share of a step. Processes also tell each other here which of them `stops`, and what stops
        one of them (a bad sample) stops all: the others raise ElsewhereError."""
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
        """Plan anew what was planned ahead: `skipped` has changed."""
        self.ahead = {}

    def planned(self, step: int) -> list[Batch]:
        """The micro-batches of a step. With uneven shares one may be empty: it then reads a sample that does
        not count."""
        places = self.split.plan(self.seed, self.batch_number(step))
        parts = self.parts(self.processes.share(places, self.together), len(places))
        found = [self.split.batch(part or places[:1], training=True) for part in parts]
        return [replace(batch, real=bool(part)) for batch, part in zip(found, parts, strict=True)]

    def batch_number(self, step: int) -> int:
        """Which global batch a step reads: its own, or a later one where some were skipped since training
        went wrong there."""
        return step + sum(count for first, count in self.skipped if step >= first)

    def parts(self, places: Sequence[Place], rows: int) -> list[list[Place]]:
        """This process's places as micro-batches of nearly equal size; the same number of them in every
        process. `rows` is how many the global batch has."""
        together = self.together
        groups = ceil(len(places) / together)
        most = ceil(ceil(rows / together) / self.processes.world_size)
        parts = ceil(most / max(min((self.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(places[start:end]) for start, end in zip([0, *ends], ends)]
