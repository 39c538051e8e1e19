"""How the data of a run are read ahead (`data.workers`): the number of worker processes, and what they plan."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ..data.feed import Thread, Workers, obstacle
from ..data.reader import CACHED, ITEM_BYTES, memory_of
from ..data.request import Request
from ..data.split import SampleSplit, Split
from ..files.reading import DataError
from ..models.batch import Batch
from ..models.model import Model
from ..tokenizers.base import Chopper

MOST_WORKERS = 16
"""The largest number of workers per process with `data.workers: auto`."""
CHEAP = 0.002
"""The number of seconds of reading per step below which `auto` means no workers."""
LONG_READING = 20.0
"""The number of seconds of reading in total below which `auto` means no workers, which take seconds to start."""


SAMPLES_PER_WORKER = 32
"""The smallest number of samples per worker in an evaluation or prediction: workers take seconds to start."""


@dataclass(frozen=True)
class CpuPlan:
    """Plans batches on the CPU, in a worker process. `model` has no weights (`Model.without_weights`), `precision` is
    that of the forward pass."""

    model: Model
    precision: str

    def __call__(self, batch: Batch) -> Batch:
        return self.model.plan(batch, dtype=getattr(torch, self.precision)) if batch.targets else batch


def stores_results(split: Split) -> str:
    """Returns the first input whose chopper computes with a trained run and stores the results (`Chopper.keep`). Empty
    if there is none. Worker processes cannot share such results."""
    return next((name for name, chopper in split.choppers.items() if type(chopper).keep is not Chopper.keep), "")


def number_of_workers(setting: int | str, split: Split, seed: int, steps: int) -> int:
    """Returns the number of worker processes of this process for a setting `data.workers`. `split` is the training
    split. Raises DataError if workers are not possible, or if there are more workers than samples."""
    stored = stores_results(split)
    if setting == "auto":
        return 0 if stored else useful_workers(split, seed, steps)
    if setting and stored:
        raise DataError(
            f"data.workers is {setting}, but inputs.{stored} stores the results of a trained run, which worker "
            "processes cannot share; set data.workers: 0"
        )
    if setting > len(split):
        raise DataError(f"data.workers is {setting}, but {split.name} has only {len(split)} {split.unit}")
    return setting


def useful_workers(split: Split, seed: int, steps: int) -> int:
    """Returns the number of worker processes for `data.workers: auto`. To find out whether reading takes long, one
    batch is read."""
    most = most_workers(split)
    if most < 1 or not split.answerable or fits_cache(split, steps):
        return 0
    started = time.perf_counter()
    split.recording().fetch_noted(Request(indices=split.plan(seed, 0), training=True))
    cost = time.perf_counter() - started
    return most if cost > CHEAP and cost * steps > LONG_READING else 0


@contextmanager
def read_ahead(split: Split, setting: int | str) -> Iterator[None]:
    """Reads the requests of a split ahead of time inside a `with` statement: with the number of workers of a setting
    `data.workers`, or, without workers, in a thread. There are fewer workers if the split has few samples. `auto` means
    workers only if reading takes long. A split that has a feed keeps it."""
    if split.feed is not None:
        yield
        return
    most = 0 if stores_results(split) else len(split) // SAMPLES_PER_WORKER
    number = 0 if setting == "auto" else min(int(setting), most)
    if setting == "auto" and split.answerable and most:
        indices = split.first(8)
        started = time.perf_counter()
        split.recording().fetch_noted(Request(indices=indices))
        cost = (time.perf_counter() - started) / max(len(indices), 1) * len(split)
        number = min(most_workers(split), most) if cost > LONG_READING and not obstacle({split.name: split}) else 0
    feed = (
        Workers({split.name: split}, number) if number > 0 else Thread({split.name: split}, bool(stores_results(split)))
    )
    split.read_by(feed)
    try:
        yield
    finally:
        split.read_by(None)
        feed.close()


def most_workers(split: Split) -> int:
    """Returns the largest number of workers per process with `data.workers: auto`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(0, min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)) - 1, MOST_WORKERS, len(split)))


def fits_cache(split: SampleSplit, steps: int) -> bool:
    """Returns whether all decoded samples fit into the cache of a split, and are read more than once."""
    sizes = []
    for index in split.first(8):
        try:
            sizes.append(ITEM_BYTES + sum(map(memory_of, split.item(index.number)[0].values())))
        except (ValueError, OSError):
            continue
    samples = split.samples
    cached = all(samples.caches(index.number) for index in split.first(8))
    return (
        cached and bool(sizes) and sum(sizes) / len(sizes) * len(samples) < CACHED and steps * split.rows > len(split)
    )
