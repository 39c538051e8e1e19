"""Counting as a rival: the probabilities are a distribution, and the loss is that of a case that can be computed."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kneser_ney import KneserNey


@settings(max_examples=50, deadline=None)
@given(
    text=st.text("abc ", min_size=4, max_size=40), length=st.integers(1, 4), before=st.text("abcd ", max_size=6),
    discount=st.floats(0.1, 0.9),
)  # fmt: skip
def test_the_probabilities_of_all_characters_add_up_to_one(text, length, before, discount):
    model = KneserNey(text, length, discount)
    total = sum(model.probability(before, character) for character in model.characters)
    assert total == pytest.approx(1)


def test_a_pair_of_characters():
    """In `abab`, two of three pairs are `ab`. Both letters follow one other letter, so their shorter counts are 1."""
    model = KneserNey("abab", 2, 0.5)
    single = (1 - 0.5 + 0.5 * 2 / 2) / 2
    assert model.probability("a", "b") == pytest.approx((2 - 0.5 + 0.5 * 1 * single) / 2)
    assert model.loss("b") == pytest.approx(-math.log(single))
