"""Samplers: which samples a training step reads. A global batch is a pure function of (seed, step), whatever was read
before and by how many processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..files.reading import DataError

POOL = 256
"""About how many batches a pool of `SimilarLengths` makes: larger pools pad less, smaller ones shuffle better."""


class SampleIndex(NamedTuple):
    """One sample of one epoch; the triple seeds everything random about it. `number` is the sample's number in its
    split, from 0; of a stream, the index of the id at which its window starts."""

    seed: int
    epoch: int
    number: int


Order = np.ndarray | list[np.ndarray]
"""The numbers of an epoch's samples, one after another, or batch by batch."""


class Sampler:
    """Base of all samplers: what a split's `plan` asks."""

    def __init__(self):
        self._epochs: dict[tuple[int, int], Order] = {}

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        """The places of one global batch, those of all processes; a pure function of its arguments."""
        raise NotImplementedError

    def drawn(self, seed: int, epoch: int) -> Order:
        """The order of an epoch, drawn at random by seed and epoch."""
        raise NotImplementedError

    def epoch(self, seed: int, epoch: int) -> Order:
        """What `drawn` gives; that of two epochs is kept."""
        if (found := self._epochs.get((seed, epoch))) is None:
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            found = self._epochs[seed, epoch] = self.drawn(seed, epoch)
        return found


class Shuffled(Sampler):
    """Batches of `rows` of `count` samples; every epoch reads each sample once, in a random order. A batch may span two
    epochs: of 3 samples in batches of 2, step 1 reads the last of epoch 0 and the first of epoch 1."""

    def __init__(self, count: int, rows: int):
        super().__init__()
        self.count, self.rows = count, rows

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [self.place(seed, number) for number in range(step * self.rows, (step + 1) * self.rows)]

    def place(self, seed: int, number: int) -> SampleIndex:
        """The place of this number among all that are read, epoch after epoch."""
        epoch, index = divmod(number, self.count)
        return SampleIndex(seed, epoch, int(self.epoch(seed, epoch)[index]))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The numbers of an epoch's samples in their order."""
        return np.random.default_rng([seed, epoch]).permutation(self.count)


class Weighted(Sampler):
    """Batches of `rows` samples, each drawn by itself with its probability in `weights`: some often, some never. Each
    draw has an epoch of its own, so that a sample drawn twice is not augmented alike."""

    def __init__(self, weights: np.ndarray, rows: int):
        super().__init__()
        self.sums, self.rows = np.cumsum(weights / weights.sum()), rows

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [self.place(seed, number) for number in range(step * self.rows, (step + 1) * self.rows)]

    def place(self, seed: int, number: int) -> SampleIndex:
        """The draw of this number."""
        drawn = self.epoch(seed, number // DRAWS)[number % DRAWS]
        return SampleIndex(seed, number, int(drawn))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The numbers of the samples of DRAWS draws."""
        chances = np.random.default_rng([seed, epoch, 3]).random(DRAWS)
        return np.minimum(np.searchsorted(self.sums, chances, side="right"), len(self.sums) - 1)


DRAWS = 4096
"""How many draws of `Weighted` are made together."""
BLOCK, LONGEST = 1000, 1000
"""A block of a mixture, in which each source has exactly its share, has BLOCK samples, or as many times that as the
shares need, at most LONGEST times."""


class Mixed(Sampler):
    """Batches of `rows` samples of several sources, each with its share; every source reads each of its samples once
    before any a second time, in a random order, or draws them by `weights` of its own. Of 3 and 1000 samples with the
    shares 0.5 and 0.5 every block of 1,000 samples holds 500 of each: those of the first source 166 or 167 times.
    Sources take turns as evenly as can be, so that every batch holds its share of each, too, give or take a sample or
    two: the weight of a task does not follow from how often it happens to be in a batch."""

    def __init__(
        self, counts: Sequence[int], shares: Sequence[float], rows: int,
        weights: Sequence[np.ndarray | None] | None = None,
    ):  # fmt: skip
        """`counts`: how many samples each source has; their numbers follow one another. `weights`: of each source how
        often each of its samples is drawn, or None: equally often. Raises DataError for a share that is too small to be
        drawn."""
        super().__init__()
        self.in_block = samples_of_block(shares)
        self.block = int(self.in_block.sum())
        self.counts, self.rows = list(counts), rows
        self.starts = np.cumsum([0, *counts])
        self.own: list[Shuffled | Weighted] = [
            Shuffled(count, 1) if own is None else Weighted(own, 1)
            for count, own in zip(counts, weights or [None] * len(counts), strict=True)
        ]

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        slots = range(step * self.rows, (step + 1) * self.rows)
        return [self._place(seed, *divmod(slot, self.block)) for slot in slots]

    def _place(self, seed: int, block: int, slot: int) -> SampleIndex:
        sources, ranks = self.epoch(seed, block)
        source = int(sources[slot])
        place = self.own[source].place(seed, block * int(self.in_block[source]) + int(ranks[slot]))
        return place._replace(number=int(self.starts[source]) + place.number)

    def drawn(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Of a block, here called an epoch, and alike in all: the source of every slot, and how many slots of its
        source come before. The k-th of n slots of a source stands behind a part (k - 1/2) / n of the block."""
        sources = np.repeat(np.arange(len(self.counts)), self.in_block)
        ranks = np.concatenate([np.arange(count) for count in self.in_block])
        order = np.argsort((ranks + 0.5) / self.in_block[sources], kind="stable")
        return [sources[order], ranks[order]]


def samples_of_block(shares: Sequence[float]) -> np.ndarray:
    """How many samples of each source a block of a mixture has: the shortest block in which each has exactly its share;
    where none has, the longest, with the largest remainders rounded up. The shares 0.5 and 0.5 give 500 and 500, 1 and
    2 give 1000 and 2000. Raises DataError for a source with a share that would never be drawn."""
    wanted = np.asarray(shares, dtype=np.float64) / sum(shares) * BLOCK
    several = wanted[:, None] * np.arange(1, LONGEST + 1)
    exact = (np.abs(several - several.round()) < 1e-6) & ((several.round() > 0) == (several > 0))
    if exact.all(0).any():
        return several[:, exact.all(0).argmax()].round().astype(int)
    longest = several[:, -1]
    found = np.floor(longest).astype(int)
    found[np.argsort(found - longest)[: BLOCK * LONGEST - found.sum()]] += 1
    for number in np.flatnonzero((found == 0) & (wanted > 0)):
        raise DataError(
            f"source {number + 1} of {len(found)} of a mixture has the share {wanted[number] / BLOCK:.3g}: it is read "
            f"less than once in {BLOCK * LONGEST:,} samples; raise its share, or set it to 0"
        )
    return found


class SimilarLengths(Sampler):
    """Batches of samples of similar length under a budget of tokens. Every epoch shuffles the samples, sorts them by
    length within pools, cuts the pools into batches of which samples x longest sample is at most the budget, and
    shuffles the batches. A sample longer than the budget is a batch by itself."""

    def __init__(self, measure: Callable[[], np.ndarray], budget: int):
        """`measure` gives the tokens of each sample in each set, (samples, sets); it is called for every epoch. A
        sample's length is that in its fuller set. `budget`: slots per batch, padding included."""
        super().__init__()
        self.measure, self.budget = measure, budget
        self._firsts: dict[int, list[int]] = {}

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        firsts = self._firsts.setdefault(seed, [0])
        while firsts[-1] <= step:
            firsts.append(firsts[-1] + len(self.epoch(seed, len(firsts) - 1)))
        epoch = next(number for number, first in enumerate(firsts) if first > step) - 1
        return [SampleIndex(seed, epoch, int(number)) for number in self.epoch(seed, epoch)[step - firsts[epoch]]]

    def drawn(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The batches of one epoch, each the numbers of its samples."""
        random, lengths = np.random.default_rng([seed, epoch]), self.measure()
        order = random.permutation(len(lengths))
        longest = np.maximum(lengths.max(axis=1), 1)
        size = max(1, int(POOL * self.budget / longest.mean()))
        batches: list[np.ndarray] = []
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool = pool[np.lexsort(lengths[pool].T)]
            begin, most = 0, 0
            for end, number in enumerate(pool):
                most = max(most, longest[number])
                if most * (end - begin + 1) > self.budget and end > begin:
                    batches.append(pool[begin:end])
                    begin, most = end, longest[number]
            batches.append(pool[begin:])
        return [batches[number] for number in random.permutation(len(batches))]
