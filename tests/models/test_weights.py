"""The recorded weights of attention: they equal an implementation in plain Python, for every kernel that runs on a
CPU."""

from __future__ import annotations

import pytest
import torch
from chopmix.models.attention import plan as choosing
from chopmix.models.attention.graph import Causal, Window
from chopmix.models.attention.kernels import Band, Dense, PerSample, Plain, Short, attend, short
from chopmix.models.attention.mask import dense_mask
from chopmix.models.attention.plan import plan, plan_cross
from chopmix.models.attention.weights import Observed, attention_weights
from chopmix.models.tokens import plain_tokens
from drawn import graphs, packed_tokens, tokens
from hypothesis import given
from hypothesis import strategies as st
from test_attention import FULL, GRAPHS, PACKED, ROWS, SETS, assert_same, flex_on_a_cpu, heads, oracle  # noqa: F401
from test_attention import short as described
from tiers import only

pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)


def expected_weights(query, key, graph, queries, keys, **options):
    """The messages of the oracle if each value is a row of the identity matrix."""
    identity = torch.eye(key.shape[2], dtype=torch.float64).expand(*key.shape[:3], -1)
    return oracle(query, key, identity, graph, queries, keys, **options)


def assert_weights(layout, graph, queries, keys=None, *, bias=None, shared=2, **options):
    """In float32: equal to the oracle within 1e-6; recording does not change the messages."""
    keys = queries if keys is None else keys
    drawn = heads(queries.shape[0], queries.shape[1], keys.shape[1], h=4, shared=shared, dtype=torch.float32)
    query, key, value = (tensor.detach() for tensor in drawn)
    watched = Observed(layout)
    expected = expected_weights(query, key, graph, queries, keys, bias=bias, **options)
    assert torch.equal(attend(query, key, value, watched, bias=bias), attend(query, key, value, layout, bias=bias))
    (weights,) = watched.weights
    assert_same(weights.double(), expected, queries, tolerance=1e-6)


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
@pytest.mark.parametrize("graph", GRAPHS, ids=described)
def test_weights_of_planned_layouts(graph, rows, shared):
    assert_weights(plan(graph, rows), graph, rows, shared=shared)


@pytest.mark.parametrize(
    "layout, graph, rows, bias",
    [
        (Plain(True), Causal(), plain_tokens(2, 9), False),
        (Plain(False), FULL, plain_tokens(2, 9), False),
        (Dense(dense_mask(PACKED, ROWS, ROWS)), PACKED, ROWS, True),
        (short(dense_mask(PACKED, ROWS, ROWS), torch.float32), PACKED, ROWS, True),
        (plan(PACKED, ROWS), PACKED, ROWS, False),
        (Band(3), Causal() & Window(3), plain_tokens(2, 11), False),
    ],
    ids=["plain causal", "plain", "dense", "short", "per sample", "band"],
)
def test_weights_of_each_kernel(layout, graph, rows, bias):
    assert type(layout) in {Plain, Dense, Short, PerSample, Band}
    b, n = rows.shape
    drawn = torch.randn(b, 4, n, n, generator=torch.Generator().manual_seed(1)) if bias else None
    assert_weights(layout, graph, rows, bias=drawn)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shared", [4, *(pytest.param(heads, marks=pytest.mark.system) for heads in (2, 1))])
@pytest.mark.parametrize("graph", only(4, GRAPHS), ids=described)
def test_weights_of_flex_attention(flex_on_a_cpu, graph, shared):  # noqa: F811
    assert_weights(choosing._plan_flex(graph, ROWS, ROWS, torch.device("cpu")), graph, ROWS, shared=shared)


@given(st.one_of(st.sampled_from(GRAPHS), graphs()), st.one_of(packed_tokens(), tokens()), st.sampled_from([4, 2, 1]))
def test_weights_of_random_graphs_and_rows(graph, drawn, shared):
    assert_weights(plan(graph, drawn), graph, drawn, shared=shared)


@given(st.one_of(packed_tokens(), tokens()), st.one_of(packed_tokens(), tokens()))
def test_weights_of_cross_attention(queries, keys):
    b = min(queries.shape[0], keys.shape[0])
    queries, keys = queries.select(slice(0, b)), keys.select(slice(0, b))
    padding = queries.sample == 0  # these queries may read all keys
    layout = plan_cross(FULL, queries, keys)
    query, key, _ = heads(b, queries.shape[1], keys.shape[1], h=4, shared=2, dtype=torch.float32)
    expected = expected_weights(query, key, FULL, queries, keys, self_attention=False)
    weights = attention_weights(layout, query, key).double()
    assert_same(weights.masked_fill(padding[:, None, :, None], 0), expected.masked_fill(padding[:, None, :, None], 0),
                queries, tolerance=1e-6)  # fmt: skip


@pytest.mark.parametrize("n", [1, 3, 4, 5, 8, 9])
def test_the_identity_is_sent_in_parts_of_the_channels(n):
    """With fewer, as many and more tokens than channels (4)."""
    rows = plain_tokens(1, n)
    query, key, _ = heads(1, n, dtype=torch.float32)
    weights = attention_weights(Plain(False), query, key)
    assert weights.shape == (1, 2, n, n)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, n))
    assert_weights(plan(FULL, rows), FULL, rows)
