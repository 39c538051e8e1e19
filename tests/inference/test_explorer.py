"""The explorer of a page: 8-bit weights, pooled tokens, the size of the page, and texts that cannot become HTML."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest
import torch
from chopmix.files.reading import DataError
from chopmix.inference.explorer import (
    MOST_TOKENS,
    Explorer,
    ShownSet,
    View,
    pooled,
    quantised,
    shown_set,
    spread_layers,
)
from chopmix.models.batch import SetPlan
from chopmix.models.tokens import PADDING, Tokens, plain_tokens
from hypothesis import given
from hypothesis import strategies as st


def drawn_weights(heads: int, queries: int, keys: int, seed: int = 0) -> torch.Tensor:
    scores = torch.randn(heads, queries, keys, generator=torch.Generator().manual_seed(seed)) * 4
    return scores.softmax(-1)


def explorer_of(n: int, depth: int, heads: int = 2, **plan) -> Explorer:
    shown = shown_set("", SetPlan(tokens=plain_tokens(1, n), chunks={}), {})
    views = [View("attention", layer, 0, 0, drawn_weights(heads, n, n, layer)) for layer in range(1, depth + 1)]
    return Explorer(sets=[shown], views=views, choppers={}, names=["text"], **plan)


def read_back(html: str, kind: str = "attention") -> tuple[dict, dict[tuple[int, int], np.ndarray]]:
    """Returns the description of a page and its weights by (layer, head), read like the script of the page."""
    data = json.loads(re.search(r"id=explorer-data>(.*?)</script>", html)[1])
    content = zlib.decompress(base64.b64decode(re.search(r"id=explorer-bytes>(.*?)</script>", html)[1]))
    maxima = np.frombuffer(content[: 4 * data["rows"]], "<f4")
    weights = {}
    for view in (view for view in data["views"] if view["kind"] == kind):
        columns = len(data["sets"][view["keys"]]["tokens"])
        for head in range(view["heads"]):
            first = view["first"] + head * view["size"]
            start = 4 * data["rows"] + view["offset"] + head * view["size"] * columns
            raw = np.frombuffer(content, np.uint8, view["size"] * columns, start).reshape(view["size"], columns)
            weights[view["layer"], head + 1] = raw / 255 * maxima[first : first + view["size"], None]
    return data, weights


@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_a_page_contains_the_weights_of_every_layer_and_head(n, depth, heads, seed):
    explorer = explorer_of(n, depth, heads)
    _, weights = read_back(explorer.html()[0])
    assert {*weights} == {(layer, head) for layer in range(1, depth + 1) for head in range(1, heads + 1)}
    for view in explorer.views:
        for head, expected in enumerate(view.weights.numpy(), start=1):
            difference = abs(weights[view.layer, head] - expected).max(1)
            assert (difference <= expected.max(1) / 255).all()


def test_rows_without_weights_are_zero():
    content, highest = quantised(torch.zeros(1, 2, 3))
    assert not content.any() and not highest.any()


@given(st.integers(1, 900), st.integers(1, 3))
def test_long_sets_are_pooled(n, inputs):
    """At most MOST_TOKENS tokens; a group never mixes inputs; rows still add up to 1."""
    tokens = plain_tokens(1, n)
    owners = (torch.arange(n) * inputs // n + 1)[None]
    tokens = Tokens(input=owners, sample=tokens.sample, item=tokens.item, position=tokens.position)
    shown = shown_set("set", SetPlan(tokens=tokens, chunks={}), {})
    assert len(shown.groups) <= MOST_TOKENS and [slot for group in shown.groups for slot in group] == [*range(n)]
    assert shown.pooled == (n > MOST_TOKENS)
    assert all(len({int(owners[0, slot]) for slot in group}) == 1 for group in shown.groups)
    if n < 300:
        weights = pooled(drawn_weights(1, n, n), shown, shown)
        torch.testing.assert_close(weights.sum(-1), torch.ones(1, len(shown.groups)))


def test_a_pooled_weight_is_the_mean_over_queries_of_the_sum_over_keys():
    weights = torch.tensor([[[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.0, 0.5, 0.5]]])
    shown = ShownSet("", SetPlan(tokens=plain_tokens(1, 3), chunks={}), {}, [[0, 1], [2]])
    torch.testing.assert_close(pooled(weights, shown, shown), torch.tensor([[[0.45, 0.55], [0.5, 0.5]]]))


def test_a_pooled_graph_has_an_edge_if_any_of_its_tokens_has_one():
    mask = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]])
    shown = ShownSet("", SetPlan(tokens=plain_tokens(1, 3), chunks={}), {}, [[0, 1], [2]])
    assert pooled(mask, shown, shown, "graph").tolist() == [[[1, 1], [0, 1]]]


def test_padding_is_not_shown():
    tokens = plain_tokens(1, 4)
    sample = torch.tensor([[1, 1, PADDING, PADDING]])
    tokens = Tokens(input=tokens.input, sample=sample, item=sample, position=tokens.position)
    assert shown_set("", SetPlan(tokens=tokens, chunks={}), {}).groups == [[0], [1]]


def test_a_large_page_contains_some_layers_and_names_them():
    explorer = explorer_of(60, 12)
    whole, remarks = explorer.html()
    assert not remarks and len({layer for layer, _ in read_back(whole)[1]}) == 12
    part, remarks = explorer.html(most=len(whole) // 3)
    layers = sorted({layer for layer, _ in read_back(part)[1]})
    assert layers[0] == 1 and layers[-1] == 12 and 2 <= len(layers) <= 4 and len(part) < len(whole) / 2
    assert remarks == [f"Of 12 layers, the page contains {', '.join(map(str, layers))}; --layers selects others."]
    chosen, remarks = explorer.html(layers=[2, 3], most=1)
    assert {layer for layer, _ in read_back(chosen)[1]} == {2, 3} and "contains 2, 3" in remarks[0]


@pytest.mark.parametrize("layer", [0, 4, 13])
def test_a_layer_that_the_model_does_not_have_is_refused(layer):
    with pytest.raises(DataError, match=f"--layers {layer}: the model has the layers 1 to 3"):
        explorer_of(4, 3).html(layers=[1, layer])


@given(st.integers(1, 60), st.data())
def test_layers_are_spread_evenly(depth, data):
    number = data.draw(st.integers(1, depth))
    layers = spread_layers(depth, number)
    assert len(layers) == number and layers[-1] == depth and (number == 1 or layers[0] == 1)
    assert layers == sorted({*layers})


def test_texts_of_data_cannot_become_html():
    explorer = explorer_of(2, 1)
    explorer = Explorer(sets=explorer.sets, views=explorer.views, choppers={}, names=["</script><b>"])
    html, _ = explorer.html()
    assert "</script><b>" not in html and read_back(html)[0]["sets"][0]["inputs"][0]["name"] == "</script><b>"
