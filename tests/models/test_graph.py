"""Attention graphs: the meaning of each graph, compared with a second implementation, and what tokens read through
layers."""

import copy
import math

import pytest
import torch
from chopmix.models.attention.graph import (
    And,
    Causal,
    Edges,
    From,
    Graph,
    Node,
    Not,
    On,
    Or,
    SameItem,
    SameSample,
    Window,
)
from chopmix.models.attention.mask import dense_mask, lasting, reach, reads
from chopmix.models.graphs.neighbourhood import Neighbourhood
from chopmix.models.leaks import with_operands
from chopmix.models.tokens import Tokens, within_samples
from drawn import LEAVES, causal_graphs, graphs, laid_out, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from own_graph import Always, Dilated, Distance, OfOperands, OfQueries, Silent

# beartype checks a random item of a tuple; hypothesis warns of random numbers that it does not control
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

FROM_IMAGE = From((2,))


def nodes(drawn: Tokens, row: int) -> list[Node]:
    """The tokens of one row as plain Python numbers, each with its position in its sample."""
    first: dict[int, float] = {}
    for sample, position in zip(drawn.sample[row].tolist(), drawn.position[row].tolist()):
        first.setdefault(sample, position[0])
    position = [[p[0] - first[s], *p[1:]] for s, p in zip(drawn.sample[row].tolist(), drawn.position[row].tolist())]
    columns = (*(t[row].tolist() for t in (drawn.input, drawn.sample, drawn.item)), position)
    return [Node(*node) for node in zip(*columns, strict=True)]


def edge_of(graph: Graph, query: Node, key: Node) -> bool:
    """The meaning of every graph, in an implementation that shares no code with `edge`."""

    def distance(axis: int) -> float:
        return math.sqrt((query.position[axis] - key.position[axis]) ** 2)

    match graph:
        case And(left, right):
            return all((edge_of(left, query, key), edge_of(right, query, key)))
        case Or(left, right):
            return any((edge_of(left, query, key), edge_of(right, query, key)))
        case Not(graph):
            return {edge_of(graph, query, key)} == {False}
        case Dilated(step):
            return (query.position[0] - key.position[0]) / step in range(-9, 10)
        case Causal(axis):
            later = math.isnan(query.position[axis])  # a token without a coordinate is later than all others
            return later or key.position[axis] < query.position[axis] or distance(axis) == 0
        case SameSample():
            return {query.sample} == {key.sample}
        case SameItem():
            return {query.item} == {key.item}
        case From(inputs):
            return key.input in inputs
        case Window(size, axis):
            return distance(axis) + 0.5 <= size  # all distances and sizes drawn are multiples of a half
        case Neighbourhood(radius, axes):
            return all(distance(axis) < radius + 0.5 for axis in axes)
        case On(axis):
            return not math.isnan(key.position[axis])
        case Edges(pairs, "inputs"):
            return (key.input, query.input) in pairs
        case Edges(pairs, "slots"):
            return (key.position[0], query.position[0]) in pairs
    raise AssertionError(f"no meaning for {graph}")


@given(graphs(), tokens(), st.booleans())
def test_the_dense_mask_equals_the_graph_for_every_pair_of_tokens(graph, drawn, self_attention):
    b, n = drawn.shape
    mask = dense_mask(graph, drawn, drawn, self_attention).expand(b, n, n)  # see test_a_mask_has_a_row_for_every_query
    for row in range(drawn.shape[0]):
        row_nodes = nodes(drawn, row)
        for i, query in enumerate(row_nodes):
            for j, key in enumerate(row_nodes):
                same_sample = query.sample == key.sample != 0
                expected = (edge_of(graph, query, key) and same_sample) or (self_attention and i == j)
                assert bool(reads(graph, query, key, self_attention)) == expected
                assert bool(mask[row, i, j]) == expected


def test_a_mask_has_a_row_for_every_query():
    queries, keys = laid_out([[1, 1, 1]]), laid_out([[1, 1]])
    assert dense_mask(FROM_IMAGE, queries, keys, self_attention=False).shape == (1, 3, 2)


for_graphs_and_tokens = given(graphs(), tokens())


@for_graphs_and_tokens
def test_no_token_reads_padding_or_another_sample_and_every_token_reads_itself(graph, drawn):
    mask, (_, n) = dense_mask(graph, drawn, drawn), drawn.shape
    assert not (mask & (drawn.sample[:, :, None] != drawn.sample[:, None])).any()
    itself = torch.eye(n, dtype=torch.bool)
    assert mask[:, itself].all()
    assert not (mask & ~itself & (drawn.sample == 0)[:, None]).any()
    crossing = dense_mask(graph, drawn, drawn, self_attention=False)
    assert not (crossing & (drawn.sample == 0)[:, None]).any()


@given(graphs(), tokens(), st.data())
def test_a_mask_of_some_queries_is_some_rows_of_the_mask(graph, drawn, data):
    """A cache relies on this: queries are the last tokens, keys are all tokens."""
    start = data.draw(st.integers(0, drawn.shape[1] - 1))
    part = drawn.select(slice(None), slice(start, None))
    assert torch.equal(dense_mask(graph, part, drawn), dense_mask(graph, drawn, drawn)[:, start:])


@given(st.lists(graphs(), min_size=1, max_size=4), tokens())
def test_reach_equals_a_search_through_the_layers(layers, drawn):
    reached = reach(layers, drawn)
    for row in range(drawn.shape[0]):
        row_nodes = nodes(drawn, row)
        places = range(len(row_nodes))
        for place in places:
            read = {place}
            for graph in reversed(layers):  # from the output down to the input
                read = {j for i in read for j in places if reads(graph, row_nodes[i], row_nodes[j])}
            assert {j for j in places if reached[row, place, j]} == read


def later(drawn: Tokens) -> torch.Tensor:
    """Whether the key is later in its sample than the query, (b, n, n)."""
    order = within_samples(drawn).position[..., 0]
    return order[:, None] > order[:, :, None]


@for_graphs_and_tokens
def test_a_causal_graph_has_no_edge_to_a_later_token(graph, drawn):
    if graph.is_causal():
        assert not (dense_mask(graph, drawn, drawn) & later(drawn)).any()


@given(st.lists(causal_graphs(), min_size=1, max_size=3), tokens())
def test_layers_of_causal_graphs_never_read_later_tokens(layers, drawn):
    for graph in layers:
        assert graph.is_causal()
    assert not (reach(layers, drawn) & later(drawn)).any()


@pytest.mark.parametrize(
    "graph, causal",
    [
        (Causal(), True),
        (Causal(1), False),
        (SameSample(), False),
        (Window(3), False),
        (From((1,)), False),
        (SameSample() & Causal(), True),
        (Causal() & SameSample(), True),
        (Causal() | Causal(), True),
        (Causal() | SameSample(), False),
        (SameSample() | Causal(), False),
        (SameSample() & (Causal() | FROM_IMAGE), False),
        (Causal() & (Causal(1) | FROM_IMAGE), True),
        (~Causal(), False),
        (~~Causal(), False),  # nothing is concluded through a negation
        (Causal() & ~FROM_IMAGE, True),
        (Causal() | ~FROM_IMAGE, False),
        (Dilated(2), False),
        (Causal() & Dilated(2), True),
    ],
)
def test_is_causal(graph, causal):
    assert graph.is_causal() is causal


def test_the_order_of_layers_matters():
    """The graph of the first layer is applied first, to the input."""
    drawn = laid_out([[1, 1, 1]])
    one, two = Edges(((2, 1),), "slots"), Edges(((1, 0),), "slots")  # 1 reads 2; 0 reads 1
    assert reach([one, two], drawn)[0, 0].tolist() == [True, True, True]
    assert reach([two, one], drawn)[0, 0].tolist() == [True, True, False]


def test_text_before_an_image_leaks_through_two_layers():
    """In one layer the predictor cannot read the target; in two layers it reads the target through the image."""
    graph = SameSample() & (Causal() | FROM_IMAGE)
    text_first = laid_out([[1, 1, 1]], [[1, 1, 2]])
    predictor, target = 0, 1
    assert not dense_mask(graph, text_first, text_first)[0, predictor, target]
    assert not reach([graph], text_first)[0, predictor, target]
    assert reach([graph, graph], text_first)[0, predictor, target]

    image_first = laid_out([[1, 1, 1]], [[2, 1, 1]])
    assert not reach([graph] * 6, image_first)[0, 1, 2]
    assert reach([graph], image_first)[0, 1, 0]


def test_samples_stay_separate_through_all_layers():
    drawn = laid_out([[1, 1, 2, 2, 0], [3, 0, 3, 4, 4]])
    same = (drawn.sample[:, :, None] == drawn.sample[:, None]) & (drawn.sample != 0)[:, None]
    itself = torch.eye(5, dtype=torch.bool)
    assert torch.equal(reach([SameSample()] * 4, drawn), same | itself)


def kinds(base: type = Graph) -> set[type]:
    """All subclasses in chopmix: the tests below need each of them in `drawn.LEAVES`."""
    return {base, *(kind for each in base.__subclasses__() for kind in kinds(each))}


def test_every_graph_is_drawn_by_hypothesis():
    ours = {kind for kind in kinds() if kind.__module__.startswith("chopmix.models.")}
    assert ours == {Graph, And, Or, *LEAVES} - {Dilated} and len(LEAVES) >= 9


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_the_position_in_a_row_does_not_change_what_a_sample_reads(kind, data):
    """Alone in a row, packed second, after padding, and token by token with a cache."""
    leaf = data.draw(LEAVES[kind])
    other = data.draw(st.none() | graphs())
    graph = leaf if other is None else data.draw(st.sampled_from([leaf & other, leaf | other]))
    n = data.draw(st.integers(1, 6))
    alone = data.draw(tokens(most=1, rows=1, length=n, sample=7))
    expected = dense_mask(graph, alone, alone)[0]
    for before in data.draw(st.lists(st.sampled_from([0, 5]), min_size=1, max_size=4)), [5] * 3, [0] * 3:
        packed = with_tokens_before(alone, before)
        mask = dense_mask(graph, packed, packed)[0]
        k = len(before)
        assert torch.equal(mask[k:, k:], expected)
        assert not mask[k:, :k].any() and not mask[:k, k:].any()
        for start in range(n):
            step = packed.select(slice(None), slice(k + start, k + start + 1))
            known = packed.select(slice(None), slice(0, k + start + 1))
            assert torch.equal(dense_mask(graph, step, known)[0, 0, k:], expected[start, : start + 1])


def with_tokens_before(alone: Tokens, before: list[int]) -> Tokens:
    """A row in which tokens of the samples `before` (0: padding) precede a sample."""
    k, n = len(before), alone.shape[1]
    front = torch.tensor([before])
    position = torch.cat([torch.full((1, k, alone.position.shape[-1]), 1.0), alone.position], dim=1)
    position[..., 0] = torch.arange(k + n)
    fields = {name: torch.cat([front, getattr(alone, name)], dim=1) for name in ("sample", "item")}
    return Tokens(input=torch.cat([front.clamp(max=1), alone.input], dim=1), position=position, **fields)


@given(graphs())
def test_a_copy_of_a_graph_is_equal_and_has_the_same_hash(graph):
    twin = copy.deepcopy(graph)
    assert twin == graph
    assert hash(twin) == hash(graph)
    assert graph & twin != graph | twin


@given(graphs(), graphs())
def test_operators_and_parts(left, right):
    assert left & right == And(left, right)
    assert left | right == Or(left, right)
    assert ~left == Not(left)
    assert (left & right).parts() == left.parts() + right.parts()
    assert (~left).parts() == (~left,)
    assert (left | right).parts() == (left | right,)


def test_different_graphs_are_not_equal():
    values = [
        Causal(),
        Causal(1),
        SameSample(),
        SameItem(),
        From((1,)),
        From((2,)),
        From((1, 2)),
        Window(2),
        Window(3),
        Window(2, 1),
        Neighbourhood(1, (1,)),
        Neighbourhood(1, (1, 2)),
        Edges(((1, 2),)),
        Edges(((1, 2),), "slots"),
        Edges(((2, 1),)),
        Causal() & SameSample(),
        SameSample() & Causal(),
        Causal() | SameSample(),
        ~Causal(),
        ~SameSample(),
    ]
    assert len(set(values)) == len(values)
    assert len({Window(3), Window(3.0)}) == 1


@for_graphs_and_tokens
def test_a_graph_and_its_negation_together_have_every_edge_of_a_sample_once(graph, drawn):
    mask, other = (dense_mask(each, drawn, drawn, self_attention=False) for each in (graph, ~graph))
    same = (drawn.sample[:, :, None] == drawn.sample[:, None]) & (drawn.sample != 0)[:, None]
    assert torch.equal(mask ^ other, same) and not (mask & other).any()
    assert torch.equal(dense_mask(~~graph, drawn, drawn), dense_mask(graph, drawn, drawn))


def test_a_graph_without_an_edge_method_is_refused():
    with pytest.raises(NotImplementedError, match=r"Graph must define edge\("):
        Graph().edge(*nodes(laid_out([[1, 1]]), 0))
    drawn = laid_out([[1, 1]])
    with pytest.raises(NotImplementedError, match=r"Silent must define edge\("):
        dense_mask(Causal() & Silent(), drawn, drawn)


@pytest.mark.parametrize(
    "graph, message",
    [
        (Distance(), r"Distance\.edge returned torch\.float32 of shape \(2, 3, 3\)"),
        (OfQueries(), r"OfQueries\.edge returned torch\.bool of shape \(5, 2, 3, 1\)"),
        (Always(), r"Always\.edge returned 'yes'"),
    ],
)
@pytest.mark.parametrize(
    "among", [lambda graph: graph, lambda graph: Causal() & graph, lambda graph: ~graph | SameItem()]
)
def test_an_edge_that_is_not_a_bool_tensor_is_refused(graph, message, among):
    drawn = laid_out([[1, 1, 1], [2, 2, 2]])
    with pytest.raises(ValueError, match=message + r"; expected: a bool tensor that broadcasts to .*, \(2, 3, 3\)"):
        dense_mask(among(graph), drawn, drawn)


def test_an_edge_between_plain_numbers_is_true_or_false():
    pair = nodes(laid_out([[1, 1]]), 0)
    with pytest.raises(ValueError, match=r"Distance\.edge returned -1\.0; expected: True or False"):
        reads(Distance(), *pair)


@given(st.lists(graphs(), min_size=1, max_size=3), tokens(sample=1), st.data())
def test_no_later_token_reads_a_token_that_can_be_forgotten(layers, drawn, data):
    """The end of a row is cut off and read again: none of its tokens reads a token that `lasting` does not keep."""
    n = drawn.shape[1]
    end = data.draw(st.integers(1, n))
    kept = lasting(layers, drawn.select(slice(None), slice(0, end)))
    for graph in layers:
        mask = dense_mask(graph, drawn, drawn)
        assert not (mask[:, end:, :end] & ~kept[:, None]).any()


def test_a_window_forgets_earlier_tokens_except_the_first_and_those_on_an_axis():
    position = torch.full((1, 9, 2), torch.nan)
    position[..., 0], position[0, 2:4, 1] = torch.arange(9), 0.0
    row = torch.ones(1, 9, dtype=torch.long)
    nine = Tokens(input=row, sample=row, item=row, position=position)
    assert lasting([Causal() & Window(3)], nine)[0].nonzero()[:, 0].tolist() == [0, 7, 8]
    assert lasting([Causal() & (Window(3) | On(1))], nine)[0].nonzero()[:, 0].tolist() == [0, 2, 3, 7, 8]
    assert lasting([Causal() & Window(3), Causal()], nine).all(), "one layer that reads all keeps all"


def test_a_field_of_a_users_graph_may_have_any_name():
    graph = OfOperands(3) & Window(2)
    assert graph.counts() and not OfOperands(3).counts()
    assert list(with_operands([graph])) == [graph, OfOperands(3), Window(2)]
