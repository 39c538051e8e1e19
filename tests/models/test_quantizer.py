"""Finite scalar quantization: every code can be restored, and rounding passes gradients."""

import math

import pytest
import torch
from chopmix.models.initialization import depth_of, roles
from chopmix.models.layers.quantizer import FiniteScalarQuantizer
from chopmix.models.model import Cores, Model
from chopmix.models.reconstruction import REACH, ReconstructionHead
from chopmix.models.transformer import Transformer
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

LEVELS = st.lists(st.integers(2, 9), min_size=1, max_size=4)


@given(LEVELS)
def test_every_code_is_restored_from_its_vector(levels):
    quantizer = FiniteScalarQuantizer(levels)
    codes = torch.arange(min(quantizer.codes, 500))
    vectors = quantizer.vectors(codes)
    assert quantizer.ids(vectors).equal(codes) and vectors.abs().max() <= 1 and quantizer.codes == math.prod(levels)
    assert len(set(map(tuple, vectors.tolist()))) == len(codes)


@given(LEVELS, st.integers(0, 99))
def test_every_quantized_vector_is_a_code(levels, seed):
    quantizer = FiniteScalarQuantizer(levels)
    x = torch.randn(50, len(levels), generator=torch.Generator().manual_seed(seed)) * 5
    quantized = quantizer(x)
    ids = quantizer.ids(quantized)
    assert ids.min() >= 0 and ids.max() < quantizer.codes
    torch.testing.assert_close(quantizer.vectors(ids).float(), quantized)


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


@pytest.mark.parametrize("levels", range(2, 10))
def test_all_levels_are_reached_and_learned_within_the_bound(levels):
    """For every number of levels, between -`REACH` and `REACH`; the gradient at the middle is not small."""
    one = FiniteScalarQuantizer([levels])
    assert set(one.ids(one(torch.linspace(-REACH, REACH, 401)[:, None])).tolist()) == set(range(levels))
    x = torch.zeros(1, 1, requires_grad=True)
    one(x).sum().backward()
    assert x.grad.item() > 0.4


def test_two_levels_are_the_signs():
    one = FiniteScalarQuantizer([2])
    assert one.ids(one(torch.tensor([[-2.0], [-0.01], [0.01], [2.0]]))).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("levels", range(3, 10))
def test_more_than_two_levels_are_computed_as_in_the_paper(levels):
    """Equal to the last bit, so that the codes of older runs do not change."""
    x = torch.linspace(-3, 3, 301)[:, None]
    half = torch.tensor((levels - 1) * (1 + 1e-3) / 2)
    offset = torch.tensor(0.5 if levels % 2 == 0 else 0.0)
    bounded = (x + (offset / half).atanh()).tanh() * half - offset
    assert torch.equal(FiniteScalarQuantizer([levels])(x), (bounded + (bounded.round() - bounded)) / (levels // 2))


@pytest.mark.parametrize(("levels", "message"), [([], "at least 2, not"), ([1], "not"), ([256, 257], "65,792 codes")])
def test_invalid_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        FiniteScalarQuantizer(levels)


def test_quantized_values_are_bounded_for_vectors_of_any_length():
    """Without a bound, values would grow until each is at its first or last level, where its gradient is zero."""
    torch.manual_seed(0)
    head = ReconstructionHead(16, 4, 3, levels=(8, 5), depth=1, heads=2)
    small, large = torch.randn(30, 16), 1e6 * torch.randn(30, 16)
    for x in (small, large):
        assert head.cosines(x).abs().max() <= REACH
    assert head.cosines(small).allclose(head.cosines(3 * small), atol=1e-5)
    ends = head.quantizer(torch.tensor([[REACH, REACH], [-REACH, -REACH]]))
    assert ends.tolist() == [[0.75, 1.0], [-1.0, -1.0]]  # every level is reached


def test_the_transformer_in_a_head_has_the_initial_values_and_groups_of_a_core():
    """With the initial values of a head, codes would be too small compared with their positions."""
    model = Model(
        {"image": nn.Linear(4, 16)},
        Cores(Transformer(width=16, depth=1, heads=2)),
        {"codes": ReconstructionHead(16, 4, 3, levels=(8, 5), depth=2, heads=2)},
        context=3,
    )
    role_of = {name.removeprefix("heads.codes."): role for name, role, _ in roles(model) if name.startswith("heads.")}
    assert role_of["down.weight"] == role_of["up.weight"] == "input" and role_of["out.weight"] == "head"
    assert (
        role_of["decoder.blocks.1.attention.query.weight"]
        == role_of["decoder.blocks.0.feed_forward.up.weight"]
        == "matrix"
    )
    assert (
        role_of["decoder.blocks.1.attention.out.weight"] == "projection" and role_of["position.weight"] == "embedding"
    )
    assert depth_of(model, "heads.codes.decoder.blocks.1.attention.out.weight") == 2
    assert depth_of(model, "cores.main.blocks.0.attention.out.weight") == depth_of(model, "heads.codes.out.weight") == 1
