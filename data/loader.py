"""The training loader. For each step, it loads the part of the global batch that belongs to this process, as
micro-batches. The following micro-batches are read in advance."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice, takewhile
from math import ceil
from typing import Any, NamedTuple

from ..models.batch import CORES, Batch
from ..models.tokens import PADDING
from .feed import Thread
from .processes import Processes
from .request import Feed, Request
from .sampler import SampleIndex
from .skipped import Event
from .split import Split


class Share(NamedTuple):
    """The part (share) of a global batch that one process reads. A global batch contains the samples of all processes
    in one step."""

    micro_batches: list[Batch]
    """At least one micro-batch, on the CPU, with the targets of all tasks."""
    counts: dict[str, float]
    """The number of targets of each task in the *global* batch, and the number of tokens of each core, such as
    `cores.main`; at least 1. The summed loss of the task, or of the layers of the core, is divided by this number."""
    stop_votes: float = 0.0
    """The number of processes that called `load` with `stops` for this step."""


def counts_of(batches: Sequence[Batch], tasks: Iterable[str]) -> dict[str, float]:
    """Returns the number of targets of each task and the number of tokens of each core in the batches, by the names of
    `Share.counts`."""
    targets = {name: sum(batch.targets[name].count for batch in batches) for name in tasks}
    sets = {core: [batch.sets[core].tokens for batch in batches if core in batch.sets] for core in CORES}
    counts = {core: sum(int((tokens.sample != PADDING).sum()) for tokens in each) for core, each in sets.items()}
    return targets | {f"cores.{core}": count for core, count in counts.items()}


class Submitted(NamedTuple):
    """A micro-batch that the feed reads."""

    step: int
    real: bool
    """False: the micro-batch is not counted (see `Batch.real`)."""
    ticket: Any


class Loader:
    """Loads the training split step by step. The loader has no state that must be saved, because the batch of a step
    depends only on the seed and the number of the step.

    `feed` reads the split ahead (None: in a thread). `steps` is the number of steps of the run. A micro-batch has at
    most `rows_per_micro_batch` samples or windows (None: all that this process reads in a step). `together`
    neighbouring samples always stay in the same micro-batch; mixup needs 2, because it mixes pairs. The attribute
    `skipped` contains pairs (step, count): from this step on, `count` further global batches are skipped, because
    training diverged on them. With (100, 3), step 100 reads batch 103.
    """

    def __init__(
        self, split: Split, processes: Processes, *, seed: int, steps: int, rows_per_micro_batch: int | None = None,
        together: int = 1, feed: Feed | None = None,
    ):  # fmt: skip
        self.split, self.processes, self.seed, self.steps = split, processes, seed, steps
        self.end = steps
        """The step before which reading ahead ends."""
        self.rows_per_micro_batch, self.together = rows_per_micro_batch, together
        self.feed = feed or Thread({split.name: split})
        self.skipped: list[tuple[int, int]] = []
        self.samples, self.inputs = 0, Counter[str]()
        """The number of training samples that this process has read, and of those with each input."""
        self.waited = 0.0
        """The seconds spent in `load` so far."""
        self.collector, self.ahead = ThreadPoolExecutor(1), {}
        self.submitted: deque[Submitted] = deque()
        self.remaining: Iterator[tuple[int, bool, Request]] = iter(())
        self.next_step = -1
        """The step whose micro-batches are the next ones in `submitted` and `remaining`; -1: none."""

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception) -> None:
        """Ends the thread and the feed."""
        self.collector.shutdown(wait=False, cancel_futures=True)
        self.feed.close()
        self.collector.shutdown()

    def load(self, step: int, stops: bool = False) -> Share:
        """Returns the share of this process in a step. Every process must call this method. `stops` is the vote of this
        process to stop the training; `Share.stop_votes` is the number of these votes. An error while reading, such as
        more bad samples than allowed, ends all processes: the process in which it occurs raises this error, all other
        processes raise ElsewhereError."""
        started, batches, error = time.perf_counter(), [], None
        future = self.ahead.pop(step, None) or self.collector.submit(self.collect, step)
        try:
            for micro_batches, events, real in future.result():
                self.split.skipped.note(*events)
                batches += [replace(batch, real=real) for batch in micro_batches]
        except (ValueError, OSError, RuntimeError) as raised:
            error = raised
        local = counts_of([batch for batch in batches if batch.real], self.split.tasks)
        *counts, votes = self.processes.agree([*local.values(), float(stops)], error)
        if step + 1 < self.end:
            self.ahead = {step + 1: self.collector.submit(self.collect, step + 1)}
        self.waited += time.perf_counter() - started
        self.count(batch for batch in batches if batch.real)
        return Share(batches, {name: max(float(n), 1.0) for name, n in zip(local, counts, strict=True)}, votes)

    def count(self, batches: Iterable[Batch]) -> None:
        """Counts the samples of batches, and the items of each input."""
        for batch in batches if self.split.answerable else ():
            self.samples += batch.first.samples
            for planned in batch.sets.values():
                self.inputs.update({name: len(chunks.counts) for name, chunks in planned.chunks.items()})

    def everywhere(self) -> tuple[int, dict[str, int]]:
        """Returns the number of training samples that all processes have read, and of those with each input. Every
        process must call this method."""
        names = list(self.split.inputs.columns)
        samples, *counts = self.processes.agree([self.samples, *(self.inputs[name] for name in names)])
        return int(samples), {name: int(count) for name, count in zip(names, counts, strict=True)}

    def forget(self) -> None:
        """Discards the micro-batches that were read in advance. Must be called after `skipped` is changed."""
        self.ahead = {}
        self.collector.submit(self.restart, -1).result()

    def read_until(self, end: int) -> None:
        """Discards what was read in advance. From now on, only steps before `end` are read."""
        self.end = min(end, self.steps)
        self.forget()

    def collect(self, step: int) -> list[tuple[list[Batch], list[Event], bool]]:
        """Returns (batches, notes on skipped data, `Batch.real`) of each micro-batch of this process in a step, and
        submits micro-batches of the following steps. Called in the thread `collector`."""
        if step != self.next_step:
            self.restart(step)
        results = []
        while True:
            missing = self.feed.ahead(training=True) + 1 - len(self.submitted)
            for at, real, request in islice(self.remaining, max(missing, 0)):
                self.submitted.append(Submitted(at, real, self.feed.submit(self.split.name, request)))
            if not self.submitted or self.submitted[0].step != step:
                self.next_step = step + 1
                return results
            results.append((*self.feed.result(self.submitted[0].ticket), self.submitted[0].real))
            self.submitted.popleft()

    def restart(self, step: int) -> None:
        """Discards all submitted micro-batches, and continues with those of another step (-1: none)."""
        while self.submitted:
            self.feed.discard(self.submitted.popleft().ticket)
        self.remaining, self.next_step = self.requests(step) if step >= 0 else iter(()), step

    def requests(self, first: int) -> Iterator[tuple[int, bool, Request]]:
        """Yields (step, `Batch.real`, request) for the micro-batches of this process, from the step `first` on. If the
        processes have different numbers of samples, a micro-batch can have no samples. It then contains the first
        sample of the global batch, has `real=False`, and is not counted."""
        for step in range(first, self.end):
            indices = self.split.plan(self.seed, self.batch_number(step))
            for part in self.parts(self.processes.share(indices, self.together), len(indices)):
                yield step, bool(part), Request(indices=part or indices[:1], training=True)

    def planned(self, step: int) -> list[Batch]:
        """Returns the micro-batches of this process in a step, read now and in this thread."""
        requests = takewhile(lambda part: part[0] == step, self.requests(step))
        return [replace(batch, real=real) for _, real, request in requests for batch in self.split.fetch(request)]

    def batch_number(self, step: int) -> int:
        """Returns the number of the global batch that a step reads: the number of the step, plus the counts in
        `skipped` of all steps up to this step."""
        return step + sum(count for first, count in self.skipped if step >= first)

    def parts(self, indices: Sequence[SampleIndex], rows: int) -> list[list[SampleIndex]]:
        """Returns the indices of this process, divided into micro-batches of nearly equal size. The number of
        micro-batches is the same in every process. With at most 4 rows per micro-batch, 10 indices become 4, 3 and 3.
        `rows` is the number of indices in the global batch."""
        together = self.together
        groups = ceil(len(indices) / together)
        most = ceil(ceil(rows / together) / self.processes.world_size)
        parts = ceil(most / max(min((self.rows_per_micro_batch or most * together) // together, most), 1))
        size, more = divmod(groups, parts)
        ends = [together * (size * (part + 1) + min(part + 1, more)) for part in range(parts)]
        return [list(indices[start:end]) for start, end in zip([0, *ends], ends)]
