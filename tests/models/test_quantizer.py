"""Finite scalar quantisation: every code comes back, and rounding lets gradients through."""

import math

import pytest
import torch
from chopmix.models.layers.quantizer import FiniteScalarQuantizer
from hypothesis import given
from hypothesis import strategies as st

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@given(LEVELS)
def test_every_code_is_a_vector_and_comes_back(levels):
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(min(quantizer.codes, 500))
    vectors = quantizer.vectors(codes)
    assert quantizer.ids(vectors).equal(codes) and vectors.abs().max() <= 1 and quantizer.codes == math.prod(levels)
    assert len(set(map(tuple, vectors.tolist()))) == len(codes)


@given(LEVELS, st.integers(0, 99))
def test_what_is_quantised_is_a_code(levels, seed):
    quantizer = FiniteScalarQuantizer(levels)
    x = torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed)) * 5
    found = quantizer(x)
    ids = quantizer.ids(found)
    assert ids.min() >= 0 and ids.max() < quantizer.codes
    torch.testing.assert_close(quantizer.vectors(ids).float(), found)


def test_the_example_of_the_docstring_and_far_values():
    quantizer = FiniteScalarQuantizer([3, 3])
    assert (quantizer(torch.tensor([[-4.0, 0.1]]))).tolist() == [[-1.0, 0.0]]
    assert quantizer.ids(quantizer(torch.tensor([[-4.0, 0.1]]))).tolist() == [3]
    for levels in ([2], [3], [4], [8]):  # all values are reached
        one = FiniteScalarQuantizer(levels)
        assert sorted(set(one.ids(one(torch.linspace(-9, 9, 2001)[:, None])).tolist())) == list(range(levels[0]))


def test_gradients_pass_the_rounding():
    quantizer = FiniteScalarQuantizer([8, 5])
    x = torch.zeros(3, 2, requires_grad=True)
    quantizer(x).sum().backward()
    assert (x.grad > 0.5).all()


@pytest.mark.parametrize(("levels", "told"), [([], "at least 2, not"), ([1], "not"), ([256, 257], "65,792 codes")])
def test_levels_that_make_no_code(levels, told):
    with pytest.raises(ValueError, match=told):
        FiniteScalarQuantizer(levels)
