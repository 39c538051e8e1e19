"""Layers of their own for groups of inputs: every token passes its own group's, and nothing else."""

from functools import partial

import pytest
import torch
from chopmix.models.attention.graph import SameSample
from chopmix.models.initialization import Gpt2, roles
from chopmix.models.layers.feed_forward import EachInput, Gelu, OwnLayers, Swiglu, slots_of
from chopmix.models.tokens import plain_tokens
from chopmix.models.transformer import Block, BlockOptions, Transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

GROUPS = [["image"], ["text", "title"]]
NAMES = ["text", "image", "title"]
LAYERS = ["feed_forward", "query", "key", "value", "out"]
NUMBERS = OwnLayers(groups=GROUPS).numbered(NAMES)


def layer(of=Gelu, width: int = 8) -> EachInput:
    """A layer for each of two groups, with different weights."""
    torch.manual_seed(0)
    made = EachInput(of(width, True), 2)
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    return made


def core(layers: list[str] | None, attention="causal & same_sample", heads: int = 2) -> Transformer:
    """A core whose groups have these layers for themselves, with random values."""
    own = layers and OwnLayers(groups=GROUPS, layers=layers)
    options = BlockOptions(own_layers=own or None)
    torch.manual_seed(0)
    made = Transformer(width=16, depth=2, heads=heads, attention=attention, block=partial(Block, options=options))
    made.name_inputs(NAMES)
    return made.eval()


def test_core_tokens_are_in_the_first_group():
    assert NUMBERS == [[2, 0], [1, 3]]


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3),
    st.sampled_from([Gelu, Swiglu]),
)
@settings(max_examples=40, deadline=None)
def test_every_token_passes_the_layer_of_its_group(rows, of):
    made, input = layer(of), torch.tensor(rows)
    x = torch.randn(*input.shape, 8)
    found = made(x, slots_of(NUMBERS, input))
    for place in torch.cartesian_prod(torch.arange(len(rows)), torch.arange(5)).tolist():
        own = made.layers[0 if input[tuple(place)] in (0, 2) else 1]
        assert torch.allclose(found[tuple(place)], own(x[tuple(place)][None])[0], atol=1e-5)
    assert sum(map(len, slots_of(NUMBERS, input))) == input.numel()


def test_a_layer_learns_of_its_own_group_alone():
    made, input = layer(), torch.tensor([[1, 1, 3]])
    made(torch.randn(1, 3, 8), slots_of(NUMBERS, input)).sum().backward()
    assert not made.layers[0].up.weight.grad.any() and made.layers[1].up.weight.grad.any()


SOME = st.lists(st.sampled_from(LAYERS), min_size=1, unique=True)


def spread(weights: dict[str, torch.Tensor], layers: list[str]) -> dict[str, torch.Tensor]:
    """The weights of a core, with those of `layers` once for each of two groups."""
    found = {}
    for name, value in weights.items():
        held = [f".{each}." for each in layers if f".{each}." in name]
        copies = [name] if not held else [name.replace(held[0], f"{held[0]}layers.{group}.") for group in (0, 1)]
        found |= dict.fromkeys(copies, value)
    return found


@given(SOME)
@settings(max_examples=20, deadline=None)
def test_equal_layers_are_one_layer(layers):
    """A core whose groups have the same weights gives what one with common layers gives."""
    one, several = core(None, SameSample()), core(layers, SameSample())
    several.load_state_dict(spread(one.state_dict(), layers))
    tokens = plain_tokens(2, 6)
    tokens.input[:, 3:] = 2
    x = torch.randn(2, 6, 16)
    assert torch.allclose(one(x, tokens), several(x, tokens), atol=1e-5)


@given(SOME)
@settings(max_examples=20, deadline=None)
def test_with_all_layers_of_its_own_a_group_is_alone(layers):
    """Tokens of one group alone are read by its own weights and the common ones: no other group's change them."""
    made, tokens = core(layers), plain_tokens(2, 6)
    x = torch.randn(2, 6, 16)
    before = made(x, tokens)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".layers.0." in name:
                parameter.normal_()
    assert torch.equal(made(x, tokens), before)
    tokens.input[:, 2] = 2
    assert not torch.equal(made(x, tokens)[:, 2], before[:, 2])


@pytest.mark.parametrize("heads", [1, 2])
def test_a_cache_changes_nothing(heads):
    made, tokens = core(LAYERS, heads=heads), plain_tokens(2, 6)
    tokens.input[:, ::2] = 2
    x = torch.randn(2, 6, 16)
    cache, whole = made.empty_cache(2, 6), made(x, tokens)
    parts = [made(x[:, a:b], tokens.select(slice(None), slice(a, b)), cache=cache) for a, b in ((0, 4), (4, 5), (5, 6))]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_a_groups_matrices_have_the_role_of_the_common_ones():
    holder = nn.Module()
    holder.cores = nn.ModuleDict({"main": core(LAYERS)})
    found = {name: role for name, role, _ in roles(holder)}
    common = nn.Module()
    common.cores = nn.ModuleDict({"main": core(None)})
    for name, role, _ in roles(common):
        copies = spread({name: torch.empty(0)}, LAYERS)
        assert {found[each] for each in copies} == {role}
    assert found["cores.main.blocks.0.attention.out.layers.1.weight"] == "projection"
    holder.cores["main"].requires_grad_(False)
    Gpt2()(holder)
    first, second = (holder.cores["main"].blocks[0].attention.out.layers[group].weight for group in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [["a", "b"]]}, "groups must be at least two"),
        ({"groups": [["a"], []]}, "none empty"),
        ({"groups": [["a"], ["a"]]}, "every input in only one"),
        ({"groups": GROUPS, "layers": []}, "at least one layer"),
        ({"groups": GROUPS, "layers": ["out", "out"]}, "none twice"),
    ],
)
def test_groups_must_be_groups(options, message):
    with pytest.raises(ValueError, match=message):
        OwnLayers(**options)


def test_groups_name_each_input():
    with pytest.raises(
        ValueError, match=r"groups must name each input once \(text, image\); missing or unknown: title"
    ):
        OwnLayers(groups=GROUPS).numbered(["text", "image"])
