"""Samplers: which samples each step reads."""

from collections import Counter
from math import ceil

import numpy as np
from chopmix.data.sampler import Mixed, Sampler, Shuffled, SimilarLengths, Weighted
from hypothesis import given, settings
from hypothesis import strategies as st


def read(sampler: Sampler, seed: int, steps: int) -> list:
    return [index for step in range(steps) for index in sampler.plan(seed, step)]


@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=40)
def test_batches_of_any_size_read_the_same_samples_in_the_same_order(rows, count, seed):
    mixed, weights = [count, 2 * count], np.arange(1, count + 1)
    for large, single in (
        (Shuffled(count, rows), Shuffled(count, 1)),
        (Mixed(mixed, [1, 2], rows), Mixed(mixed, [1, 2], 1)),
        (Weighted(weights, rows), Weighted(weights, 1)),
    ):
        assert read(large, seed, 50) == read(single, seed, 50 * rows)
    indices = read(Shuffled(count, rows), seed, 50)
    for epoch in range(len(indices) // count):
        assert Counter(index.number for index in indices if index.epoch == epoch) == Counter(range(count))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(9, 30), st.integers(0, 99))
@settings(max_examples=40)
def test_batches_of_similar_lengths_read_every_sample_once_in_an_epoch(lengths, budget, seed):
    sampler = SimilarLengths(lambda: np.array(lengths)[:, None], budget)
    steps = sampler.steps_of(2.0, seed)
    indices = read(sampler, seed, steps)
    assert Counter((index.epoch, index.number) for index in indices) == Counter(
        (epoch, number) for epoch in range(2) for number in range(len(lengths))
    )
    for step in range(steps):
        batch = sampler.plan(seed, step)
        assert len(batch) * max(lengths[index.number] for index in batch) <= budget
    assert sampler.steps_of(0.5, seed) == max(1, ceil(len(sampler.epoch(seed, 0)) / 2))
