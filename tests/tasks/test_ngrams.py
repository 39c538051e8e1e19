"""Interpolated n-grams: the probabilities are a distribution, and equal a direct computation with dictionaries."""

from collections import Counter

import numpy as np
import pytest
from chopmix.tasks.baselines.ngrams import (
    SYMBOLS,
    ByteTargets,
    best_discount,
    counted,
    likelihoods,
    of_targets,
    predict_texts,
)
from chopmix.tasks.baselines.simple_models import Examples
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.lists(st.sampled_from([97, 98, 99, 32, 255, 256]), max_size=40)


def direct(train, length, discount, before, following):
    """The probability of a symbol, from dictionaries of sequences."""
    counts = [Counter(tuple(train[i : i + length]) for i in range(len(train) - length + 1))]
    while len(counts) < length:
        counts.insert(0, Counter(sequence[1:] for sequence in counts[0]))
    probability = 1 / SYMBOLS
    for number, of_length in enumerate(counts):
        context = tuple(before[len(before) - number :]) if number else ()
        after = {sequence: count for sequence, count in of_length.items() if sequence[:-1] == context}
        if len(before) >= number and after:
            known = max(after.get((*context, following), 0) - discount, 0)
            probability = (known + discount * len(after) * probability) / sum(after.values())
    return probability


@given(train=TEXTS, length=st.integers(1, 4), text=TEXTS.filter(bool), discount=st.floats(0.1, 0.95))
def test_probabilities_equal_a_direct_computation(train, length, text, discount):
    orders = counted(np.array(train, dtype=np.int64), length)
    values = likelihoods(orders, discount, np.array(text))
    for place, value in enumerate(values):
        before = text[max(0, place - length + 1) : place]
        assert value == pytest.approx(direct(train, length, discount, before, text[place]), rel=1e-9)


@given(train=TEXTS, length=st.integers(1, 7), before=TEXTS, discount=st.floats(0.1, 0.95))
def test_the_probabilities_of_all_symbols_add_up_to_one(train, length, before, discount):
    orders = counted(np.array(train, dtype=np.int64), length)
    total = sum(likelihoods(orders, discount, np.array([*before, symbol]))[-1] for symbol in range(SYMBOLS))
    assert total == pytest.approx(1)


def test_a_target_of_several_bytes_has_the_sum_of_their_losses():
    symbols, orders = np.array([97, 98, 256, 97]), counted(np.array([97, 98] * 20), 3)
    losses = -np.log(likelihoods(orders, 0.8, symbols))
    result = of_targets(orders, 0.8, ByteTargets(symbols, np.array([0, 0, 1, 3]), 4))
    np.testing.assert_allclose(result, [losses[0] + losses[1], losses[2], 0, losses[3]])


def test_texts_of_the_others_are_not_counted():
    def examples(*texts):
        byte_targets = [ByteTargets(np.array(text), np.arange(len(text)), len(text)) for text in texts]
        return Examples(np.empty((len(texts), 0)), (), (), byte_targets)

    train, one, two = examples([97, 98] * 20), examples([97, 98]), examples([99] * 30)
    first, second = predict_texts(train, [one, two])
    np.testing.assert_array_equal(first[0], predict_texts(train, [one])[0][0])
    assert first[0].sum() < second[0][:2].sum() and 0.5 <= best_discount(np.array([97, 98] * 30)) <= 0.95
