"""`OwnLayers`: each token passes only through the layers of its group of inputs."""

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


def small_layer(of=Gelu, width: int = 8) -> EachInput:
    """A layer for each of two groups, with different weights."""
    torch.manual_seed(0)
    layer = EachInput(of(width, True), 2)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def small_core(layers: list[str] | None, attention="causal & same_sample", heads: int = 2) -> Transformer:
    """A core with these layers once for each group, with random values."""
    own_layers = layers and OwnLayers(groups=GROUPS, layers=layers)
    options = BlockOptions(own_layers=own_layers or None)
    torch.manual_seed(0)
    core = Transformer(width=16, depth=2, heads=heads, attention=attention, block=partial(Block, options=options))
    core.name_inputs(NAMES)
    return core.eval()


def test_core_tokens_are_in_the_first_group():
    assert NUMBERS == [[2, 0], [1, 3]]


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3),
    st.sampled_from([Gelu, Swiglu]),
)
@settings(max_examples=40, deadline=None)
def test_every_token_passes_through_the_layer_of_its_group(rows, of):
    layer, input = small_layer(of), torch.tensor(rows)
    x = torch.randn(*input.shape, 8)
    outputs = layer(x, slots_of(NUMBERS, input))
    for place in torch.cartesian_prod(torch.arange(len(rows)), torch.arange(5)).tolist():
        layer_of_group = layer.layers[0 if input[tuple(place)] in (0, 2) else 1]
        assert torch.allclose(outputs[tuple(place)], layer_of_group(x[tuple(place)][None])[0], atol=1e-5)
    assert sum(map(len, slots_of(NUMBERS, input))) == input.numel()


def test_a_layer_learns_only_from_its_group():
    layer, input = small_layer(), torch.tensor([[1, 1, 3]])
    layer(torch.randn(1, 3, 8), slots_of(NUMBERS, input)).sum().backward()
    assert not layer.layers[0].up.weight.grad.any() and layer.layers[1].up.weight.grad.any()


SOME = st.lists(st.sampled_from(LAYERS), min_size=1, unique=True)


def copied_per_group(weights: dict[str, torch.Tensor], layers: list[str]) -> dict[str, torch.Tensor]:
    """The weights of a core; the weights of `layers` occur once for each of two groups."""
    weights_per_group = {}
    for name, value in weights.items():
        matches = [f".{each}." for each in layers if f".{each}." in name]
        copies = (
            [name] if not matches else [name.replace(matches[0], f"{matches[0]}layers.{group}.") for group in (0, 1)]
        )
        weights_per_group |= dict.fromkeys(copies, value)
    return weights_per_group


for_some = given(SOME)


@for_some
@settings(max_examples=20, deadline=None)
def test_groups_with_equal_weights_equal_common_layers(layers):
    """A core whose groups have the same weights gives the output of a core with common layers."""
    one, several = small_core(None, SameSample()), small_core(layers, SameSample())
    several.load_state_dict(copied_per_group(one.state_dict(), layers))
    tokens = plain_tokens(2, 6)
    tokens.input[:, 3:] = 2
    x = torch.randn(2, 6, 16)
    assert torch.allclose(one(x, tokens), several(x, tokens), atol=1e-5)


@for_some
@settings(max_examples=20, deadline=None)
def test_the_layers_of_one_group_do_not_change_the_tokens_of_another(layers):
    """Tokens of one group are computed by the layers of this group and the common layers."""
    core, tokens = small_core(layers), plain_tokens(2, 6)
    x = torch.randn(2, 6, 16)
    before = core(x, tokens)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if ".layers.0." in name:
                parameter.normal_()
    assert torch.equal(core(x, tokens), before)
    tokens.input[:, 2] = 2
    assert not torch.equal(core(x, tokens)[:, 2], before[:, 2])


@pytest.mark.parametrize("heads", [1, 2])
def test_cached_equals_uncached(heads):
    core, tokens = small_core(LAYERS, heads=heads), plain_tokens(2, 6)
    tokens.input[:, ::2] = 2
    x = torch.randn(2, 6, 16)
    cache, whole = core.empty_cache(2, 6), core(x, tokens)
    parts = [core(x[:, a:b], tokens.select(slice(None), slice(a, b)), cache=cache) for a, b in ((0, 4), (4, 5), (5, 6))]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_the_matrices_of_a_group_have_the_role_of_the_common_matrix():
    holder = nn.Module()
    holder.cores = nn.ModuleDict({"main": small_core(LAYERS)})
    role_of_name = {name: role for name, role, _ in roles(holder)}
    common = nn.Module()
    common.cores = nn.ModuleDict({"main": small_core(None)})
    for name, role, _ in roles(common):
        copies = copied_per_group({name: torch.empty(0)}, LAYERS)
        assert {role_of_name[each] for each in copies} == {role}
    assert role_of_name["cores.main.blocks.0.attention.out.layers.1.weight"] == "projection"
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
def test_invalid_groups_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OwnLayers(**options)


def test_groups_must_name_each_input():
    with pytest.raises(
        ValueError, match=r"groups must name each input once \(text, image\); missing or unknown: title"
    ):
        OwnLayers(groups=GROUPS).numbered(["text", "image"])
