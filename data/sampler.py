"""Samplers, which select the samples of each training step. A global batch (the samples of all processes in one step)
depends only on the seed and the step, not on earlier batches or the number of processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..files.reading import DataError

POOL = 256
"""The approximate number of batches per pool (see `SimilarLengths`). Larger pools need less padding, smaller pools
shuffle better."""


class SampleIndex(NamedTuple):
    """One sample in one epoch. The three numbers are the seed of its augmentation and of all other random operations.
    `number` is the number of the sample in its split, from 0; for a stream, the index of the first id of the window."""

    seed: int
    epoch: int
    number: int


Order = np.ndarray | list[np.ndarray]
"""The numbers of the samples of an epoch: as one array, or as one array per batch."""


class Sampler:
    """Base class of all samplers. A sampler implements `Split.plan`."""

    rows: int | None = None
    """The number of samples of each batch; None if the batches have different numbers."""

    def __init__(self):
        self._epochs: dict[tuple[int, int], Order] = {}

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        """Returns a `SampleIndex` (seed, epoch, number) for each sample of a global batch, which is the samples of all
        processes in one step. The result depends only on the arguments."""
        raise NotImplementedError

    def slots_of(self, step: int) -> range:
        """Returns the slots of a batch in the order of reading: with 8 `rows`, batch 2 has the slots 16 to 23."""
        return range(step * self.rows, (step + 1) * self.rows)

    def drawn(self, seed: int, epoch: int) -> Order:
        """Returns the random order of an epoch; `seed` and `epoch` seed the random generator."""
        raise NotImplementedError

    def steps_of(self, epochs: float, seed: int) -> int | None:
        """Returns the number of batches in a number of epochs, if the batches have different numbers of samples; else
        None."""
        return None

    def epoch(self, seed: int, epoch: int) -> Order:
        """Returns the result of `drawn`. The results for the last two epochs are cached."""
        if (order := self._epochs.get((seed, epoch))) is None:
            while len(self._epochs) > 1:
                self._epochs.pop(next(iter(self._epochs)))
            order = self._epochs[seed, epoch] = self.drawn(seed, epoch)
        return order


class Shuffled(Sampler):
    """Batches of `rows` samples out of `count`. Every epoch reads each sample once, in random order. A batch can span
    two epochs: with 3 samples in batches of 2, step 1 reads the last sample of epoch 0 and the first of epoch 1."""

    def __init__(self, count: int, rows: int):
        super().__init__()
        self.count, self.rows = count, rows

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [self.sample_index(seed, number) for number in self.slots_of(step)]

    def sample_index(self, seed: int, number: int) -> SampleIndex:
        """Returns the index of the sample that is read as number `number`, counted from the start of training."""
        epoch, index = divmod(number, self.count)
        return SampleIndex(seed, epoch, int(self.epoch(seed, epoch)[index]))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the numbers of the samples in the order of the epoch."""
        return np.random.default_rng([seed, epoch]).permutation(self.count)


class Weighted(Sampler):
    """Batches of `rows` samples. Each sample is drawn independently, with the probabilities `weights / sum(weights)`.
    The epoch in the index is the number of the draw, so a sample that is drawn twice is augmented differently."""

    def __init__(self, weights: np.ndarray, rows: int):
        super().__init__()
        self.sums, self.rows = np.cumsum(weights / weights.sum()), rows

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [self.sample_index(seed, number) for number in self.slots_of(step)]

    def sample_index(self, seed: int, number: int) -> SampleIndex:
        """Returns the index of the sample that is drawn as number `number`, counted from the start of training."""
        drawn = self.epoch(seed, number // DRAWS)[number % DRAWS]
        return SampleIndex(seed, number, int(drawn))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """Returns the numbers of the samples in DRAWS consecutive draws."""
        chances = np.random.default_rng([seed, epoch, 3]).random(DRAWS)
        return np.minimum(np.searchsorted(self.sums, chances, side="right"), len(self.sums) - 1)


DRAWS = 4096
"""The number of draws that `Weighted` makes at once."""
BLOCK, LONGEST = 1000, 1000
"""In each block of a mixture, each source has exactly its share. A block has BLOCK samples, or the smallest multiple of
BLOCK in which the shares are whole numbers, but at most LONGEST * BLOCK samples."""


class Mixed(Sampler):
    """Batches of `rows` samples from several sources, in the proportions `shares`. Each source reads all its samples
    once, in random order, before it reads any of them again. A source with `weights` draws its samples with replacement
    instead, with these probabilities.

    Example: two sources with 3 and 1000 samples and the shares 0.5 and 0.5 have 500 samples each in every block of
    1,000 samples; each sample of the first source is read 166 or 167 times. The samples of the sources alternate. All
    batches therefore have similar numbers of samples per source, and the influence of each source on the loss is nearly
    constant.
    """

    def __init__(
        self, counts: Sequence[int], shares: Sequence[float], rows: int,
        weights: Sequence[np.ndarray | None] | None = None,
    ):  # fmt: skip
        """`counts`: the number of samples of each source; the samples are numbered one source after another. `shares`:
        the share of each source in the mixture, relative to the other shares. `weights`: for each source the
        probabilities of its samples, or None (all equal). Raises DataError if a share is above 0 but so small that the
        source has no sample in the longest block."""
        super().__init__()
        self.in_block = samples_of_block(shares)
        self.block = int(self.in_block.sum())
        self.counts, self.rows = list(counts), rows
        self.starts = np.cumsum([0, *counts])
        self.samplers: list[Shuffled | Weighted] = [
            Shuffled(count, 1) if source_weights is None else Weighted(source_weights, 1)
            for count, source_weights in zip(counts, weights or [None] * len(counts), strict=True)
        ]

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        return [self._sample_index(seed, *divmod(slot, self.block)) for slot in self.slots_of(step)]

    def _sample_index(self, seed: int, block: int, slot: int) -> SampleIndex:
        sources, ranks = self.epoch(seed, block)
        source = int(sources[slot])
        index = self.samplers[source].sample_index(seed, block * int(self.in_block[source]) + int(ranks[slot]))
        return index._replace(number=int(self.starts[source]) + index.number)

    def drawn(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Returns two arrays (block) for the slots of a block, that is, for its samples in order: the index of the
        source, and the number of earlier slots of this source. All blocks are equal; `epoch`, the number of the block,
        is ignored. The k-th of the n slots of a source is placed at the fraction (k - 1/2) / n of the block."""
        sources = np.repeat(np.arange(len(self.counts)), self.in_block)
        ranks = np.concatenate([np.arange(count) for count in self.in_block])
        order = np.argsort((ranks + 0.5) / self.in_block[sources], kind="stable")
        return [sources[order], ranks[order]]


def samples_of_block(shares: Sequence[float]) -> np.ndarray:
    """Returns the number of samples of each source in one block of a mixture. The block is the shortest one in which
    each source has exactly its share; if there is none, it is the longest block, and the largest remainders are rounded
    up. The shares 0.5 and 0.5 result in 500 and 500, the shares 1 and 2 in 1000 and 2000. Raises DataError if a source
    has a positive share but no sample in the block."""
    wanted = np.asarray(shares, dtype=np.float64) / sum(shares) * BLOCK
    multiples = wanted[:, None] * np.arange(1, LONGEST + 1)
    exact = (np.abs(multiples - multiples.round()) < 1e-6) & ((multiples.round() > 0) == (multiples > 0))
    if exact.all(0).any():
        return multiples[:, exact.all(0).argmax()].round().astype(int)
    longest = multiples[:, -1]
    counts = np.floor(longest).astype(int)
    counts[np.argsort(counts - longest)[: BLOCK * LONGEST - counts.sum()]] += 1
    for number in np.flatnonzero((counts == 0) & (wanted > 0)):
        raise DataError(
            f"source {number + 1} of {len(counts)} of a mixture has the share {wanted[number] / BLOCK:.3g}: it is read "
            f"less than once in {BLOCK * LONGEST:,} samples; raise its share, or set it to 0"
        )
    return counts


class SimilarLengths(Sampler):
    """Batches of samples of similar length, with at most `budget` slots including padding. In every epoch, the samples
    are shuffled and divided into pools. The samples of a pool are sorted by length and cut into batches with (number of
    samples) x (longest sample) <= budget. Then the batches are shuffled. A sample that is longer than the budget forms
    a batch alone."""

    def __init__(self, measure: Callable[[], np.ndarray], budget: int):
        """`measure` returns the number of tokens of each sample in each set, (samples, sets); it is called once per
        epoch. The length of a sample is the maximum over the sets. `budget`: the number of slots per batch and set,
        including padding."""
        super().__init__()
        self.measure, self.budget = measure, budget
        self._firsts: dict[int, list[int]] = {}

    def steps_of(self, epochs: float, seed: int) -> int:
        complete, rest = divmod(epochs, 1)
        steps = sum(len(self.epoch(seed, epoch)) for epoch in range(int(complete)))
        return max(1, steps + math.ceil(rest * len(self.epoch(seed, int(complete)))) if rest else steps)

    def plan(self, seed: int, step: int) -> list[SampleIndex]:
        firsts = self._firsts.setdefault(seed, [0])
        while firsts[-1] <= step:
            firsts.append(firsts[-1] + len(self.epoch(seed, len(firsts) - 1)))
        epoch = next(number for number, first in enumerate(firsts) if first > step) - 1
        return [SampleIndex(seed, epoch, int(number)) for number in self.epoch(seed, epoch)[step - firsts[epoch]]]

    def drawn(self, seed: int, epoch: int) -> list[np.ndarray]:
        """Returns the batches of one epoch; each batch is an array of sample numbers."""
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
