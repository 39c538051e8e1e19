"""Feed-forward layers of their own for groups of inputs: every token passes its own group's, and nothing else."""

from functools import partial

import pytest
import torch
from chopmix.models.attention.graph import SameSample
from chopmix.models.layers.feed_forward import EachInput, Gelu, Swiglu
from chopmix.models.tokens import plain_tokens
from chopmix.models.transformer import Block, BlockOptions, Transformer
from hypothesis import given, settings
from hypothesis import strategies as st

GROUPS = [["image"], ["text", "title"]]
NAMES = ["text", "image", "title"]


def layer(of=Gelu, width: int = 8) -> EachInput:
    torch.manual_seed(0)
    made = EachInput(width, groups=GROUPS, of=of)
    made.name_inputs(NAMES)
    return made


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3),
    st.sampled_from([Gelu, Swiglu]),
)
@settings(max_examples=40, deadline=None)
def test_every_token_passes_the_layer_of_its_group(rows, of):
    made, input = layer(of), torch.tensor(rows)
    x = torch.randn(*input.shape, 8)
    found = made(x, made.slots(input))
    for place in torch.cartesian_prod(torch.arange(len(rows)), torch.arange(5)).tolist():
        own = made.layers[0 if input[tuple(place)] in (0, 2) else 1]
        assert torch.allclose(found[tuple(place)], own(x[tuple(place)][None])[0], atol=1e-6)
    assert sum(map(len, made.slots(input))) == input.numel()


def test_a_common_layer_is_added_to_that_of_the_group():
    own, common = layer(), Gelu(8)
    both = EachInput(8, groups=GROUPS, of=Gelu, common=Gelu)
    both.name_inputs(NAMES)
    both.layers.load_state_dict(own.layers.state_dict())
    both.common.load_state_dict(common.state_dict())
    x, input = torch.randn(2, 5, 8), torch.tensor([[1, 2, 3, 0, 1], [2, 2, 2, 0, 0]])
    assert torch.equal(both(x, both.slots(input)), own(x, own.slots(input)) + common(x))
    assert not own.state_dict().keys() & {f"common.{name}" for name in common.state_dict()}


def test_a_layer_learns_of_its_own_group_alone():
    made, input = layer(), torch.tensor([[1, 1, 3]])
    made(torch.randn(1, 3, 8), made.slots(input)).sum().backward()
    assert not made.layers[0].up.weight.grad.any() and made.layers[1].up.weight.grad.any()


def test_equal_layers_are_one_layer():
    """A core whose groups have the same weights gives what one with a single layer gives, bit for bit where every
    token's product is the same, with a cache as without."""
    torch.manual_seed(0)
    one = Transformer(width=16, depth=2, heads=2, attention=SameSample())
    options = BlockOptions(feed_forward=partial(EachInput, groups=GROUPS))
    several = Transformer(width=16, depth=2, heads=2, attention=SameSample(), block=partial(Block, options=options))
    for block in several.blocks:
        block.feed_forward.name_inputs(NAMES)
    weights = one.state_dict()
    spread = {}
    for name, value in weights.items():
        if ".feed_forward." in name:
            spread |= {name.replace(".feed_forward.", f".feed_forward.layers.{number}."): value for number in range(2)}
        else:
            spread[name] = value
    several.load_state_dict(spread)
    tokens = plain_tokens(2, 6)
    tokens.input[:, 3:] = 2
    x = torch.randn(2, 6, 16)
    assert torch.allclose(one(x, tokens), several(x, tokens), atol=1e-6)
    causal = Transformer(width=16, depth=2, heads=2, attention="causal", block=partial(Block, options=options))
    for block in causal.blocks:
        block.feed_forward.name_inputs(NAMES)
    cache, whole = causal.empty_cache(2, 6), causal(x, tokens)
    parts = [
        causal(x[:, a:b], tokens.select(slice(None), slice(a, b)), cache=cache) for a, b in ((0, 4), (4, 5), (5, 6))
    ]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["a", "b"]], "groups must be at least two"),
        ([["a"], []], "none empty"),
        ([["a"], ["a"]], "each input in one of them"),
    ],
)
def test_groups_must_be_groups(groups, message):
    with pytest.raises(ValueError, match=message):
        EachInput(8, groups=groups)


def test_groups_name_each_input():
    with pytest.raises(ValueError, match=r"groups must name each input once \(text, image\); see title"):
        EachInput(8, groups=GROUPS).name_inputs(["text", "image"])
    nested = partial(EachInput, groups=GROUPS)
    for layers in ({"of": nested}, {"common": nested}):
        with pytest.raises(ValueError, match="a layer for each input holds no such layers itself"):
            EachInput(8, groups=GROUPS, **layers)
