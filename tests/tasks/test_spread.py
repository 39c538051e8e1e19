"""Recall, coverage and in-class variance against plain definitions, and on sets whose figures are known."""

import numpy as np
import pytest
import torch
from chopmix.tasks.measuring import spread
from chopmix.tasks.measuring.spread import class_variance, coverage, halves, recall
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def drawn(n, d=4, seed=0, shift=0.0, scale=1.0):
    return shift + scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def radius(items, number, k):
    """The distance to the k-th nearest other item."""
    return sorted(np.linalg.norm(items[number] - other) for i, other in enumerate(items) if i != number)[k - 1]


def plain_recall(true, generated, k):
    balls = [(each, radius(generated, i, k)) for i, each in enumerate(generated)]
    return np.mean([any(np.linalg.norm(x - each) <= r for each, r in balls) for x in true])


def plain_coverage(true, generated, k):
    return np.mean(
        [any(np.linalg.norm(x - each) <= radius(true, i, k) for each in generated) for i, x in enumerate(true)]
    )


SETS = st.integers(7, 12).flatmap(
    lambda n: st.tuples(*[arrays(np.float64, (n, 2), elements=st.integers(-4, 4).map(float))] * 2)
)


@given(SETS, st.integers(1, 6))
@settings(max_examples=25)
def test_figures_are_those_of_their_definitions(sets, k):
    """On a grid, where many distances are equal, and equal items have the distance 0."""
    true, generated = map(torch.from_numpy, sets)
    assert recall(true, generated, k) == pytest.approx(plain_recall(*sets, k))
    assert coverage(true, generated, k) == pytest.approx(plain_coverage(*sets, k))
    assert recall(true, true, k) == coverage(true, true, k) == 1
    assert recall(true, generated + 100, k) == coverage(true, generated + 100, k) == 0


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_figures_do_not_depend_on_how_many_distances_are_in_memory(monkeypatch, rows):
    true, generated = drawn(60), drawn(60, seed=1, scale=0.7)
    expected = plain_recall(true.numpy(), generated.numpy(), 5), plain_coverage(true.numpy(), generated.numpy(), 5)
    monkeypatch.setattr(spread, "DISTANCE_ROWS", rows)
    assert (recall(true, generated), coverage(true, generated)) == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_one_distribution_covers_itself():
    """The expectation of coverage is 1 - 2 ** -5 (Naeem et al. 2020, section 3.2)."""
    true, generated = drawn(1000, seed=2), drawn(1000, seed=3)
    assert coverage(true, generated) == pytest.approx(1 - 2**-5, abs=0.02) and recall(true, generated) > 0.93


def test_a_collapsed_generator_has_low_figures():
    true = torch.cat([drawn(100, seed=n, shift=20.0 * n) for n in range(4)])
    one_kind = drawn(400, seed=9)
    assert recall(true, one_kind) == pytest.approx(0.25, abs=0.02)
    assert coverage(true, one_kind) == pytest.approx(0.25, abs=0.02)
    one_item = true[:1].expand(400, -1)
    assert recall(true, one_item) == 1 / 400 and coverage(true, one_item) < 0.05


def test_too_few_items_have_no_neighbours():
    with pytest.raises(ValueError, match="5 items are too few for 5 neighbours"):
        recall(drawn(5), drawn(5))
    with pytest.raises(ValueError, match="5 items are too few for 5 neighbours"):
        coverage(drawn(5), drawn(5))


def test_the_variance_in_classes():
    features = torch.tensor([[0.0, 0], [2, 0], [5, 5], [5, 9], [5, 5], [7, 7]])
    classes = ["a", "a", "b", "b", "b", "alone"]
    expected = [np.cov(features.numpy()[rows].T).trace() for rows in ([0, 1], [2, 3, 4])]
    assert class_variance(features, classes) == pytest.approx(np.mean(expected))
    assert class_variance(features, list("abcdef")) is None
    assert class_variance(features[[2, 4]], ["a", "a"]) == 0


def test_halves_have_one_length():
    for n in (6, 7):
        one, other = halves(torch.arange(float(n))[:, None])
        assert one.flatten().tolist() == [0, 2, 4] and other.flatten().tolist() == [1, 3, 5]
