"""Attention kernels: each gives the result of plain Python and of the dense mask; and the choice of a kernel."""

from __future__ import annotations

import math
import re
from functools import partial

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from chopmix.models.attention import kernels as attention
from chopmix.models.attention import plan as choosing
from chopmix.models.attention.graph import Causal, Edges, From, Graph, Node, SameSample, Window
from chopmix.models.attention.kernels import Band, Dense, Flex, PerSample, Plain, Short, VariableLength, attend
from chopmix.models.attention.kernels import short as short_layout
from chopmix.models.attention.mask import dense_mask, reads
from chopmix.models.attention.message_passing import MessageNode, pass_messages, receive
from chopmix.models.attention.plan import plan, plan_cross
from chopmix.models.graphs.neighbourhood import Neighbourhood
from chopmix.models.tokens import PADDING, Tokens, plain_tokens, within_samples
from drawn import graphs, laid_out, packed_tokens, tokens
from hypothesis import given
from hypothesis import strategies as st
from tiers import only
from torch import Tensor

# beartype checks a random item of a tuple; hypothesis warns of random numbers that it does not control
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

FULL, PACKED = SameSample(), Causal() & SameSample()
PREFIX = SameSample() & (Causal() | From((2,)))
ROWS = laid_out(
    [[1, 1, 1, 2, 2, 2, 2, 0], [3, 0, 0, 4, 4, 4, 5, 5]], [[2, 2, 1, 1, 1, 2, 1, 0], [1, 0, 0, 2, 1, 1, 2, 1]]
)


def short(value) -> str | None:
    """The short name of a parameter in pytest's output: graphs without argument names, tokens by shape."""
    if isinstance(value, Tokens):
        return "x".join(str(size) for size in value.shape)
    return re.sub(r"\w+=", "", repr(value)).replace(" ", "") if isinstance(value, Graph) else None


def heads(b: int, n: int, m: int | None = None, *, h: int = 2, shared: int | None = None, seed: int = 0, **options):
    """Random queries (b, h, n, c), and keys and values (b, shared, m, c), in float64 if `options` has no other
    dtype."""
    make = torch.Generator().manual_seed(seed)
    options = {"dtype": torch.float64} | options
    shapes = [(b, h, n, 4)] + [(b, shared or h, n if m is None else m, 4)] * 2
    return [torch.randn(*shape, generator=make, dtype=torch.float64).to(**options).requires_grad_() for shape in shapes]


def oracle(query, key, value, graph: Graph, queries: Tokens, keys: Tokens, *, self_attention=True, bias=None) -> Tensor:
    """Attention in plain Python: a loop over nodes, by row and by head; neighbouring query heads share a key head."""
    shared = query.shape[1] // key.shape[1]

    def nodes(side: Tokens, row: int) -> list[Node]:
        relative = within_samples(side, keys if self_attention else None)
        return [Node(*node) for node in zip(*(t[row].tolist() for t in vars(relative).values()), strict=True)]

    def is_read(reader: Node, sender: Node) -> bool:
        return reads(graph, reader, sender, self_attention)

    def one(row: int, head: int) -> list[list[float]]:
        columns = [key[row, head // shared].tolist(), value[row, head // shared].tolist(), nodes(keys, row)]
        senders = [MessageNode([], k, v, t) for k, v, t in zip(*columns, strict=True)]
        pairs = zip(query[row, head].tolist(), nodes(queries, row), strict=True)
        readers = [MessageNode(q, [], [0.0] * value.shape[-1], t) for q, t in pairs]
        if bias is None:
            return pass_messages(readers, senders, is_read)
        read_by_each = [[j for j, s in enumerate(senders) if is_read(r.token, s.token)] for r in readers]
        return [
            receive(r, [senders[j] for j in js], [float(bias[row, head, i, j]) for j in js])
            for i, (r, js) in enumerate(zip(readers, read_by_each, strict=True))
        ]

    query, key, value = (t.detach() for t in (query, key, value))
    (b, h), n = query.shape[:2], queries.shape[1]
    return torch.tensor([[one(row, head) for head in range(h)] for row in range(b)], dtype=torch.float64).view(
        b, h, n, -1
    )


def assert_same(result: Tensor, expected: Tensor, queries: Tokens | None = None, tolerance: float = 1e-10):
    """Equal at every query that is not padding; finite everywhere."""
    assert result.shape == expected.shape
    assert result.isfinite().all()
    kept = slice(None) if queries is None else (queries.sample != PADDING)
    result, expected = (t.transpose(1, 2)[kept] for t in (result, expected))
    torch.testing.assert_close(result, expected, rtol=tolerance, atol=tolerance)


def gradients(layout, query, key, value, queries: Tokens, bias=None) -> tuple[Tensor, ...]:
    """The output, and the gradients of a loss that weighs each channel of every query that is not padding."""
    mixed = attend(query, key, value, layout, bias=bias)
    weight = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(mixed)
    kept = (queries.sample != PADDING)[:, None, :, None].to(mixed.device)
    return mixed, *torch.autograd.grad((mixed * weight * kept).sum(), (query, key, value))


def assert_layouts_agree(layout, dense, inputs, queries: Tokens, tolerance: float = 1e-10):
    results, expected_results = (gradients(way, *inputs, queries) for way in (layout, dense))
    assert_same(results[0], expected_results[0], queries, tolerance)
    for gradient, expected in zip(results[1:], expected_results[1:], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=tolerance, atol=tolerance)


GRAPHS = [
    FULL, PACKED, Causal(), PREFIX, Causal() & Window(2), SameSample() & Window(2), Causal() & SameSample() & Window(3),
    SameSample() & Neighbourhood(1, (1, 2)), Edges(((2, 1),)), Causal(1) | From((1,)),
    Causal() | Edges(((1, 0),), "slots"),
]  # fmt: skip
SETS = {
    "one": laid_out([[1] * 8, [2] * 8], [[1, 2] * 4, [2] * 8]),
    "packed": ROWS,
    "full rows": laid_out([[1, 1, 2], [3, 3, 3]]),
    "single": laid_out([[1], [2]]),
    "scattered": laid_out([[1, 2, 1, 0, 2, 1]]),
}


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
@pytest.mark.parametrize("graph", GRAPHS, ids=short)
def test_planned_layout_and_dense_mask_equal_the_oracle(graph, rows, shared):
    inputs = heads(*rows.shape, h=4, shared=shared)
    expected = oracle(*inputs, graph, rows, rows)
    assert_same(attend(*inputs, plan(graph, rows)), expected, rows)
    assert_same(attend(*inputs, Dense(dense_mask(graph, rows, rows))), expected, rows)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (1, 4, 1, 8), (1, 4, 8, 8), (2, 1, 8, 1)], ids=short)
@pytest.mark.parametrize("graph", [PACKED, PREFIX, Causal() & Window(2), FULL], ids=short)
@pytest.mark.parametrize("planned", [True, False], ids=["planned", "short"])
def test_a_bias_is_added_as_in_the_oracle(graph, shape, planned):
    query, key, value = heads(2, 8, h=4, shared=2)
    bias = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    # in half precision, rows as short as these are planned as `Short`, which computes the matrix of scores
    layout_of_half_precision = short_layout(dense_mask(graph, ROWS, ROWS), torch.float64)
    layout = plan(graph, ROWS, bias=True) if planned else layout_of_half_precision
    mixed = attend(query, key, value, layout, bias=bias)
    assert_same(mixed, oracle(query, key, value, graph, ROWS, ROWS, bias=bias.detach().expand(2, 4, 8, 8)), ROWS)
    assert torch.autograd.gradcheck(
        lambda *inputs: attend(*inputs[:3], layout, bias=inputs[3]), (query, key, value, bias), fast_mode=True
    )


def test_a_float32_bias_is_accepted_with_float64_queries():
    query, key, value = heads(2, 8)
    bias = torch.ones(1, 2, 8, 8)
    assert_same(attend(query, key, value, plan(PACKED, ROWS, bias=True), bias=bias),
                attend(query, key, value, plan(PACKED, ROWS)), ROWS)  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 12, 20])
def test_band_equals_the_causal_window(n, size):
    """Lengths that fill the blocks and lengths that do not; windows of one token and windows wider than the row."""
    rows, inputs = plain_tokens(2, n), heads(2, n, h=4, shared=2)
    graph = Causal() & Window(size)
    assert_layouts_agree(Band(size), Dense(dense_mask(graph, rows, rows)), inputs, rows)
    assert_same(attend(*inputs, Band(size)), oracle(*inputs, graph, rows, rows))


@pytest.mark.parametrize("causal", [True, False])
def test_plain_equals_the_oracle(causal):
    rows, inputs = plain_tokens(2, 5), heads(2, 5, h=4, shared=1)
    assert_same(attend(*inputs, Plain(causal)), oracle(*inputs, Causal() if causal else FULL, rows, rows))


@given(st.one_of(st.sampled_from(GRAPHS), graphs()), st.one_of(packed_tokens(), packed_tokens(padding=False), tokens()),
       st.sampled_from([1, 2]))  # fmt: skip
def test_every_planned_layout_equals_the_dense_mask(graph, drawn, shared):
    """Values and gradients, for random graphs and rows: the choice of a kernel changes no result."""
    dense = Dense(dense_mask(graph, drawn, drawn))
    assert_layouts_agree(plan(graph, drawn), dense, heads(*drawn.shape, shared=shared), drawn)


@given(st.sampled_from([1, 1.5, 2, 3, 4.5, 5]), st.integers(1, 14))
def test_windows_with_a_fractional_size_equal_the_dense_mask(size, n):
    rows, graph = plain_tokens(1, n), Causal() & Window(size)
    assert_layouts_agree(plan(graph, rows), Dense(dense_mask(graph, rows, rows)), heads(1, n), rows)


@pytest.mark.parametrize("size", [0.5, math.inf])
def test_windows_below_one_token_and_infinite_windows_equal_the_oracle(size):
    rows, graph, inputs = plain_tokens(1, 9), Causal() & Window(size), heads(1, 9)
    assert_same(attend(*inputs, plan(graph, rows)), oracle(*inputs, graph, rows, rows))


@given(st.one_of(st.sampled_from(GRAPHS), graphs()), st.one_of(packed_tokens(), tokens()), st.data())
def test_cached_steps_equal_the_end_of_the_whole_row(graph, drawn, data):
    """The queries are the last tokens of the keys: one, several, or all of them."""
    n = drawn.shape[1]
    start = data.draw(st.sampled_from([n - 1, max(n - 3, 0), 0]))
    last = drawn.select(slice(None), slice(start, None))
    query, key, value = heads(*drawn.shape)
    whole = attend(query, key, value, Dense(dense_mask(graph, drawn, drawn)))[:, :, start:]
    assert_same(attend(query[:, :, start:], key, value, plan(graph, last, drawn)), whole, last)


@pytest.mark.parametrize("graph", GRAPHS, ids=short)
@pytest.mark.parametrize("count", [1, 3])
def test_cached_steps_equal_the_oracle(graph, count):
    for rows in SETS["one"], ROWS:
        last = rows.select(slice(None), slice(8 - count, None))
        inputs = heads(2, count, 8, h=4, shared=2)
        assert_same(attend(*inputs, plan(graph, last, rows)), oracle(*inputs, graph, last, rows), last)


CROSSED = {
    "all read all": (plain_tokens(2, 3), plain_tokens(2, 5)),
    "packed": (laid_out([[1, 1, 2, 2, 0], [3, 3, 3, 4, 4]]), laid_out([[1, 2, 2, 2], [4, 0, 3, 3]])),
    "nothing to read": (laid_out([[1, 1, 2, 0], [3, 3, 4, 4]]), laid_out([[2, 0, 0], [0, 0, 0]])),
    "no source at all": (laid_out([[1, 1]]), plain_tokens(1, 0)),
}


@pytest.mark.parametrize("shared", [4, 1])
@pytest.mark.parametrize("graph", [FULL, Causal(), SameSample() & From((2,))], ids=short)
@pytest.mark.parametrize("case", CROSSED)
def test_cross_attention_equals_the_oracle_and_empty_sources_give_zeros(case, graph, shared):
    queries, keys = CROSSED[case]
    inputs = heads(*queries.shape, keys.shape[1], h=4, shared=shared)
    layout = plan_cross(graph, queries, keys)
    mixed = attend(*inputs, layout)
    assert_same(mixed, oracle(*inputs, graph, queries, keys, self_attention=False), queries)
    silent = ~dense_mask(graph, queries, keys, self_attention=False).any(-1) & (queries.sample != PADDING)
    assert (mixed.transpose(1, 2)[silent] == 0).all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(mixed.sum(), inputs))


def test_keys_that_no_query_reads_get_no_gradient():
    """The mask of a query with an empty source shows it all keys of its row; these keys still get no gradient."""
    queries, keys = laid_out([[1, 1]]), laid_out([[2, 2]])
    inputs = heads(1, 2)
    mixed = attend(*inputs, plan_cross(FULL, queries, keys))
    assert all((g == 0).all() for g in torch.autograd.grad(mixed.sum(), inputs))


def test_the_content_of_padding_changes_no_output():
    for graph in GRAPHS:
        query, key, value = heads(2, 8)
        before = attend(query, key, value, plan(graph, ROWS))
        hole = (ROWS.sample == PADDING)[:, None, :, None]
        after = attend(query, key.masked_fill(hole, 7.0), value.masked_fill(hole, -9.0), plan(graph, ROWS))
        kept = ROWS.sample != PADDING
        assert torch.equal(before.transpose(1, 2)[kept], after.transpose(1, 2)[kept])


LONG = laid_out([[1] * 64, [2] * 64])


@pytest.mark.parametrize(
    "graph, rows, options, layout",
    [
        (Causal(), LONG, {}, Plain(causal=True)),
        (PACKED, LONG, {}, Plain(causal=True)),
        (SameSample() & Causal(), LONG, {}, Plain(causal=True)),
        (FULL, LONG, {}, Plain(causal=False)),
        (Causal(), laid_out([[1, 1, 2, 2]]), {}, PerSample),
        (Causal() & Window(64), LONG, {}, Plain(causal=True)),
        (PACKED, ROWS, {}, PerSample),
        (FULL, ROWS, {}, PerSample),
        (PACKED, laid_out([[1, 1, 0]]), {}, PerSample),
        (PACKED, SETS["scattered"], {}, Dense),
        (Causal() & Window(8), LONG, {}, Band(8)),
        (PACKED & Window(8), LONG, {}, Band(8)),
        (Causal() & Window(40), LONG, {}, Dense),
        (PACKED & Window(2), ROWS, {}, Dense),
        (FULL & Window(8), LONG, {}, Dense),
        (Causal() & Window(8, axis=1), LONG, {}, Dense),
        (Causal() & Window(8) & Window(9), LONG, {}, Dense),
        (Causal(1), LONG, {}, Dense),
        (Causal() | FULL, LONG, {}, Dense),
        (PREFIX, LONG, {}, Dense),
        (Causal(), ROWS, {}, PerSample),
        (PACKED, LONG, {"bias": True}, Dense),
        (PACKED, ROWS, {"bias": True}, Dense),
        (PACKED, ROWS, {"bias": True, "dtype": torch.bfloat16}, Short),
        (PACKED, LONG, {"dropout": 0.1}, Plain(causal=True)),
        (PACKED, ROWS, {"dropout": 0.1}, PerSample),
    ],
    ids=short,
)
def test_the_layout_that_is_chosen_on_a_cpu(graph, rows, options, layout):
    planned = plan(graph, rows, **options)
    assert type(planned) is layout if isinstance(layout, type) else planned == layout


def test_the_layout_that_is_chosen_for_cached_steps_and_cross_attention():
    last = LONG.select(slice(None), slice(63, None))
    assert plan(PACKED, last, LONG) == Plain(causal=False)
    assert isinstance(plan(PACKED, LONG.select(slice(None), slice(60, None)), LONG), Dense)
    assert isinstance(plan(PACKED & Window(8), last, LONG), Dense)
    assert plan_cross(FULL, LONG, LONG) == Plain(causal=False)
    assert isinstance(plan_cross(FULL, ROWS, ROWS), Dense)


@pytest.mark.parametrize(
    "graph, rows, options, layout",
    [
        (PACKED, LONG, {}, Plain(causal=True)),
        (PACKED, ROWS, {}, VariableLength),
        (FULL, ROWS, {"dtype": torch.float16}, VariableLength),
        (PACKED, ROWS, {"dtype": torch.float32}, None),
        (PACKED, ROWS, {"dropout": 0.1}, None),
        (PACKED, ROWS, {"bias": True}, None),
        (PACKED, SETS["scattered"], {}, None),
        (Causal() & Window(8), LONG, {}, None),
        (PREFIX, ROWS, {}, None),
    ],
    ids=short,
)
def test_the_layout_that_is_chosen_on_cuda(monkeypatch, graph, rows, options, layout):
    """The part of the choice that needs no GPU; None: Flex is chosen (or Dense, for a bias or dropout)."""
    options = {"dtype": torch.bfloat16, "bias": False, "dropout": 0.0} | options
    monkeypatch.setattr(choosing, "_varlen_attention", lambda: print)
    planned = choosing._plan_simple(graph, rows, rows, device=torch.device("cuda"), **options)
    assert type(planned) is layout if isinstance(layout, type) else planned == layout
    monkeypatch.setattr(choosing, "_varlen_attention", lambda: None)  # a version of torch that has no such kernel
    if layout is VariableLength:
        assert choosing._plan_simple(graph, rows, rows, device=torch.device("cuda"), **options) is None


def test_per_sample_cuts_where_the_sample_changes():
    assert plan(FULL, ROWS).lengths == (3, 4, 1, 1, 2, 3, 2)  # no sample continues in the next row


@pytest.mark.parametrize("shared", [4, 2, 1])
@pytest.mark.parametrize("causal", [True, False])
def test_variable_length_joins_all_samples_into_one_row(monkeypatch, causal, shared):
    """A function that runs on any device replaces torch's kernel: boundaries, grouped heads, and the way back to
    rows."""

    def stand_in(query, key, value, starts, key_starts, longest, key_longest, *, window_size, scale=None):
        assert starts.dtype == torch.int32 and torch.equal(starts, key_starts) and window_size in ((-1, 0), (-1, -1))
        lengths = starts.diff().tolist()
        assert longest == key_longest == max(lengths) and sum(lengths) == len(query) and min(lengths) > 0
        chunks = zip(*(t.split(lengths) for t in (query, key, value)), strict=True)
        return torch.cat(
            [
                F.scaled_dot_product_attention(
                    *(t.transpose(0, 1) for t in chunk), is_causal=window_size == (-1, 0), scale=scale
                )
                for chunk in chunks
            ],
            dim=1,
        ).transpose(0, 1)

    monkeypatch.setattr(attention, "_varlen_attention", lambda: stand_in)
    graph = PACKED if causal else FULL
    layout = choosing._plan_simple(graph, ROWS, ROWS, torch.device("cuda"), torch.bfloat16, False, 0.0)
    assert layout.causal is causal
    assert_layouts_agree(layout, Dense(dense_mask(graph, ROWS, ROWS)), heads(2, 8, h=4, shared=shared), ROWS)


@pytest.mark.parametrize(
    "graph, layout",
    [(Causal(), Plain), (FULL, PerSample), (PACKED, PerSample), (PACKED & Window(4), Band), (PREFIX, Dense)],
    ids=short,
)
def test_dropout_changes_outputs_and_keeps_their_mean(graph, layout):
    """All values are one: without dropout every output is one; with dropout outputs differ, with a mean of about
    one."""
    rows = laid_out([[1] * 20 + [2] * 44] * 2) if layout is PerSample else plain_tokens(2, 64)
    rows = Tokens(**vars(rows) | {"sample": rows.sample + 2 * torch.arange(2)[:, None]})
    planned = plan(graph, rows, dropout=0.3)
    assert type(planned) is layout
    query, key = (t.detach() for t in heads(2, 64, h=8)[:2])
    value = torch.ones_like(key)
    torch.manual_seed(0)
    dropped = attend(query, key, value, planned, dropout=0.3)
    assert (dropped - 1).abs().mean() > 0.05
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert not torch.equal(dropped, attend(query, key, value, planned, dropout=0.3))
    torch.testing.assert_close(attend(query, key, value, planned), value)


def test_cross_attention_has_dropout_too():
    queries, keys = laid_out([[1, 1, 2, 3]]), laid_out([[1, 1, 1, 2, 2, 2, 2]])
    query, key, _ = heads(1, 4, 7)
    torch.manual_seed(0)
    dropped = attend(query, key, torch.ones_like(key), plan_cross(FULL, queries, keys), dropout=0.5)
    assert (dropped[:, :, :3] != 1).any() and (dropped[:, :, 3] == 0).all()


@pytest.mark.parametrize("layout", [Plain(True), Band(4), plan(PACKED, ROWS)], ids=lambda x: type(x).__name__)
def test_a_layout_that_cannot_add_a_bias_refuses_it(layout):
    with pytest.raises(ValueError, match="bias"):
        attend(*heads(2, 8), layout, bias=torch.ones(2, 2, 8, 8))


def test_a_layout_that_cannot_apply_dropout_refuses_it(monkeypatch):
    monkeypatch.setattr(attention, "_varlen_attention", lambda: lambda query, *_, **__: query)
    layout = VariableLength(torch.tensor([0, 16], dtype=torch.int32), 16, causal=True)
    with pytest.raises(ValueError, match="dropout"):
        attend(*heads(2, 8), layout, dropout=0.1)


def test_layouts_can_be_moved_to_a_device():
    for layout in plan(PACKED, LONG), plan(PACKED, ROWS), plan(PREFIX, ROWS), plan_cross(FULL, *CROSSED["packed"]):
        moved, inputs = layout.to("cpu"), heads(2, 8)
        assert type(moved) is type(layout)
        if not isinstance(layout, Dense) or layout.mask.shape[1:] == (8, 8):
            assert torch.equal(attend(*inputs, moved), attend(*inputs, layout))


@pytest.fixture
def flex_on_a_cpu():
    """FlexAttention runs uncompiled on a CPU. It traces the graph, which the checks of annotations would prevent."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def assert_flex_agrees(graph: Graph, queries: Tokens, keys: Tokens, shared: int):
    """Compares values only: torch has no backward pass for FlexAttention on a CPU."""
    layout = choosing._plan_flex(graph, queries, keys, torch.device("cpu"))
    assert isinstance(layout, Flex)
    inputs = [t.detach() for t in heads(*queries.shape, keys.shape[1], h=4, shared=shared)]
    expected = attend(*inputs, Dense(dense_mask(graph, queries, keys)))
    assert_same(attend(*inputs, layout), expected, queries)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shared", [pytest.param(4, marks=pytest.mark.system), 2])
@pytest.mark.parametrize("graph", only(4, GRAPHS), ids=short)
def test_flex_equals_the_dense_mask(flex_on_a_cpu, graph, shared):
    for rows in ROWS, SETS["one"]:
        assert_flex_agrees(graph, rows, rows, shared)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("graph", only(1, [PACKED & Window(40), PREFIX]), ids=short)
def test_flex_over_several_blocks_and_for_cached_queries(flex_on_a_cpu, graph):
    """300 tokens are three blocks of 128, the last one partly filled; the first sample extends over two of them."""
    rows = laid_out([[1] * 150 + [2] * 100 + [0] * 50], [[2] * 20 + [1] * 180 + [2] * 100])
    assert_flex_agrees(graph, rows, rows, 2)
    assert_flex_agrees(graph, rows.select(slice(None), slice(200, None)), rows, 4)


@pytest.mark.system
def test_flex_is_compiled_again_only_for_the_first_change_of_the_length(flex_on_a_cpu, monkeypatch):
    """If each length were compiled, torch would stop after eight and compute the whole matrix of scores uncompiled."""
    monkeypatch.setattr(attention, "_compiled_flex_attention", None)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    for n in range(20, 34):
        rows = laid_out([[1] * (n - 8) + [2] * 8], [[1, 2] * (n // 2) + [1] * (n % 2)])
        layout = choosing._plan_flex(PREFIX, rows, rows, torch.device("cpu"))
        inputs = [t.detach() for t in heads(1, n)]
        result = attention._flex_attention(True)(*inputs, block_mask=layout.block_mask, enable_gqa=False)
        assert_same(result, attend(*inputs, Dense(dense_mask(PREFIX, rows, rows))), rows)
    assert counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    torch._dynamo.reset()
