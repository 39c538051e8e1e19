"""The task `next_item`: which token predicts which, that no token reads the future, and the errors for bad input."""

import numpy as np
import pytest
import torch
from chopmix.models.attention.graph import Causal, From, SameSample
from chopmix.models.attention.kernels import PerSample, Plain
from chopmix.models.attention.mask import dense_mask, reach
from chopmix.models.attention.plan import plan
from chopmix.models.batch import Batch
from chopmix.models.leaks import LeakCheck, LeakError, leaks
from chopmix.tasks.next_item import NextItem, pairs
from chopmix.tokenizers.base import axes_of, chopped
from chopmix.tokenizers.category import CategoryChopper, CategoryTokenizer
from chopmix.tokenizers.chopping.packing import ordered_in_time, pack, place
from chopmix.tokenizers.encoding.base import ByteEncoding
from chopmix.tokenizers.sensor import SensorChopper
from chopmix.tokenizers.text import TextChopper
from hypothesis import given, settings
from hypothesis import strategies as st

RETURN = SensorChopper(channels=1)
STATE = SensorChopper(channels=2, offset=0.25)
ACTION = CategoryChopper(size=3, offset=0.5)


def packed(samples, choppers, in_time=True, context=64, **how):
    parts = [[(name, chopped(name, choppers[name], choppers[name].decode(raw))) for name, raw in s] for s in samples]
    axes = axes_of(choppers.values())
    planned = place(parts, choppers, context, axes, trim=True, **how)
    return ordered_in_time(planned, axes) if in_time else planned


@st.composite
def two_streams(draw):
    """Samples of two streams with clocks, on a grid so that seconds of both often agree."""
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        clocks = [sorted(draw(st.sets(st.integers(0, 12), min_size=1, max_size=6))) for _ in range(2)]
        samples.append([[each / 4 for each in clock] for clock in clocks])
    return samples


@given(two_streams(), st.booleans(), st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_each_token_predicts_the_first_later_token(samples, in_time, core):
    choppers = {"a": CategoryChopper(size=99), "b": CategoryChopper(size=99, shape=(2,))}
    rows = []
    for first, second in samples:
        a = {"values": range(len(first)), "seconds": first}
        rows.append([("b", {"values": np.zeros((len(second), 2)), "seconds": second}), ("a", a)])
    planned = packed(rows, choppers, in_time, core=core)
    matches = pairs(planned, "b", "a", 1)
    seconds = planned.tokens.position[..., 1].flatten()
    at, target = (planned.chunks[name].slots for name in ("b", "a"))
    expected = {}
    numbers = {"a": 0, "b": 0}
    for first, second in samples:
        for k, time in enumerate(second):
            later = [n for n, each in enumerate(first) if each > time]
            expected[numbers["b"] + k] = numbers["a"] + later[0] if later else -1
        numbers = {"a": numbers["a"] + len(first), "b": numbers["b"] + len(second)}
    assert dict(zip(matches.supervised.tolist(), matches.following.tolist())) == expected
    assert all(seconds[target[f]] > seconds[at[j]] for j, f in zip(*map(torch.Tensor.tolist, matches)) if f >= 0)


def test_of_several_tokens_of_one_second_the_last_is_supervised():
    choppers = {"cells": SensorChopper(channels=1), "act": ACTION}
    planned = packed([[("cells", np.zeros((3, 1))), ("act", [1, 2])]], choppers)
    planned.tokens.position[0, planned.chunks["cells"].slots[:2], 1] = 0.0  # two tokens at 0 seconds, one at 2
    assert pairs(planned, "cells", "act", 1).supervised.tolist() == [1, 2]


def test_tokens_are_in_the_order_of_their_seconds():
    choppers = {
        "word": TextChopper(vocabulary=ByteEncoding(), generated=False, offset=-1.0),
        "return": RETURN,
        "state": STATE,
        "action": ACTION,
    }
    sample = [("word", "go"), ("return", np.ones((3, 1))), ("state", np.ones((3, 2))), ("action", [0, 1, 2])]
    planned = packed([sample, sample[1:]], choppers, core=1)
    row = planned.tokens.input.flatten()[planned.tokens.sample.flatten() == 1].tolist()
    assert row == [0, 1, 1, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]
    for name, chunks in planned.chunks.items():
        number = list(choppers).index(name) + 1
        assert (planned.tokens.input.flatten()[chunks.slots] == number).all()
    seconds = planned.tokens.position.flatten(0, 1)[planned.chunks["action"].slots, 1]
    assert seconds.tolist() == [0.5, 1.5, 2.5] * 2
    order = planned.tokens.position[..., 0]
    assert torch.equal(order, torch.arange(order.shape[1]).float().expand_as(order))


@given(two_streams(), st.booleans())
@settings(max_examples=80, deadline=None)
def test_causal_in_seconds_is_causal_where_order_is_time(samples, shift):
    """The fast path is taken exactly where its mask is the same."""
    choppers = {"a": CategoryChopper(size=99), "b": CategoryChopper(size=99, offset=0.125 if shift else 0.0)}
    rows = [
        [("a", {"values": range(len(f)), "seconds": f}), ("b", {"values": range(len(s)), "seconds": s})]
        for f, s in samples
    ]
    tokens = packed(rows, choppers).tokens
    graph = Causal(1) & SameSample()
    same = torch.equal(dense_mask(graph, tokens, tokens), dense_mask(Causal() & SameSample(), tokens, tokens))
    fast = isinstance(plan(graph, tokens), Plain | PerSample)
    assert fast == same and (fast or not shift)


def batch_of(choppers, samples, task, in_time=True):
    task.choppers = choppers
    batch = Batch(main=packed(samples, choppers, in_time))
    batch, targets = task.targets(batch)
    return Batch(main=batch.main, targets={"act": targets})


def episode(steps=3):
    return [("return", np.ones((steps, 1))), ("state", np.ones((steps, 2))), ("action", np.arange(steps) % 3)]


def test_the_naive_graph_of_an_instruction_leaks_but_not_at_second_minus_one():
    """A text without seconds reads all tokens that have some; a token that reads the text thus reads the future."""
    task, policy = NextItem(target="action", at="state"), {"return": RETURN, "state": STATE, "action": ACTION}
    text = TextChopper(vocabulary=ByteEncoding(), generated=False)
    sample = [("word", "go"), *episode()]
    naive = (SameSample() & (Causal(1) | From((1,))),) * 2
    batch = batch_of({"word": text, **policy}, [sample], task)
    assert leaks(batch, naive)["act"]
    with pytest.raises(LeakError, match="task 'act' predicts token"):
        LeakCheck().check(batch, naive)
    earlier = TextChopper(vocabulary=ByteEncoding(), generated=False, offset=-1.0)
    for graphs in (naive, (SameSample() & Causal(1),) * 2):
        batch, check = batch_of({"word": earlier, **policy}, [sample, sample], task), LeakCheck()
        check.check(batch, graphs)
        assert not leaks(batch, graphs)["act"] and check.by_form == 6 and not check.searched


@given(
    two_streams(), st.booleans(), st.sampled_from([Causal(1), Causal(), Causal(1) & Causal(), Causal(1) | From((1,))])
)
@settings(max_examples=120, deadline=None)
def test_a_graph_that_is_proven_by_its_form_has_no_leak(samples, in_time, graph):
    choppers = {"a": CategoryChopper(size=99), "b": CategoryChopper(size=99)}
    rows = [
        [("a", {"values": range(len(f)), "seconds": f}), ("b", {"values": range(len(s)), "seconds": s})]
        for f, s in samples
    ]
    batch, graphs, check = (
        batch_of(choppers, rows, NextItem(target="a", at="b"), in_time),
        (graph & SameSample(),) * 3,
        LeakCheck(),
    )
    leaking = leaks(batch, graphs)["act"]
    try:
        check.check(batch, graphs)
    except LeakError:
        assert leaking
    else:
        assert not leaking


def test_missing_inputs_and_samples_for_prediction():
    task, choppers = NextItem(target="action", at="state"), {"return": RETURN, "state": STATE, "action": ACTION}
    targets = batch_of(choppers, [episode(), episode()[:2]], task).targets["act"]
    assert targets.count == 3 and targets.values.tolist() == [0, 1, 2] and targets.groups.tolist() == [0, 0, 0]
    targets = batch_of(choppers, [episode()[:2]], task).targets["act"]
    assert targets.count == 0 and len(targets.slots) == 0
    task.for_prediction = True
    batch = batch_of(choppers, [episode(2)[:2] + [("action", [1])], episode(1)[:2]], task)
    targets = batch.targets["act"]
    assert targets.values.tolist() == [1, -100, -100] and targets.groups.tolist() == [0, 0, 1]
    answers = task.answers(torch.eye(3), targets, batch)
    assert [each["next"] for each in answers] == [[0, 1], [2]]


def test_numbers_are_predicted_in_units_of_their_std():
    y = SensorChopper(channels=2, offset=0.5, mean={"0": 1.0}, scale={"0": 2.0})
    task, choppers = NextItem(target="y", at="x"), {"x": SensorChopper(channels=1), "y": y}
    sample = [("x", np.zeros((2, 1))), ("y", [[3.0, 5.0], [np.nan, 7.0]])]
    batch = batch_of(choppers, [sample], task)
    targets = batch.targets["act"]
    assert (
        targets.count == 3
        and targets.values[0].tolist() == [1.0, 5.0]
        and targets.values[1].isnan().tolist() == [True, False]
    )
    output = torch.tensor([[0.0, 5.0], [9.0, 8.0]])
    assert task.terms(output, targets)["loss"].item() == 2.0
    sums = task.measure(output, targets) | {"loss": torch.tensor(2.0), "count": torch.tensor(3.0)}
    metrics = {name: metric.of_sums(sums) for name, metric in task.metrics.items()}
    assert metrics == pytest.approx({"loss": 2 / 3, "mae_0": 2.0, "rmse_0": 2.0, "mae_1": 0.5, "rmse_1": 0.5**0.5})
    assert task.answers(output, targets, batch) == [{"next": [[1.0, 5.0], [19.0, 8.0]]}]


@pytest.mark.parametrize(
    ("chopper", "raw", "message"),
    [
        (ACTION, [0, 3], "categories must be whole numbers from 0 to 2, not 3"),
        (ACTION, [0.5], "categories must be whole numbers from 0 to 2, not 0.5"),
        (ACTION, [[0]], r"categories must have the shape \(times,\), not \(1, 1\)"),
        (ACTION, [], r"must have the shape \(times,\), not \(0,\)"),
        (
            CategoryChopper(size=2, shape=(2, 2)),
            np.zeros((3, 2)),
            r"must have the shape \(times, 2, 2\), not \(3, 2\)",
        ),
        (
            ACTION,
            {"values": [1, 1], "seconds": [1.0, 0.5]},
            "seconds must increase: measurement 1 .counted from 0. is at 0.5 s, the one before it at 1 s",
        ),
        (RETURN, {"values": [1, 1], "seconds": [1.0, 1.0]}, "seconds must increase"),
        (RETURN, {"values": [1, 1], "seconds": [1.0]}, "there are 1 seconds, but 2 measurements"),
        (RETURN, {"values": [1, 1], "seconds": [0, np.nan]}, "\\(seconds\\) must be between .*, not nan"),
        (RETURN, {"values": [1, 1], "seconds": [0, 1.7e9]}, "\\(seconds\\) must be between .*, not 1.7e"),
        (RETURN, {"values": [1, 1]}, "'seconds' is missing"),
        (RETURN, b"seconds,0\n0.5,1\n0.2,1\n", "seconds must increase: measurement 1 .counted from 0. is at 0.2 s"),
    ],
)
def test_values_that_cannot_be_read_are_refused(chopper, raw, message):
    with pytest.raises(ValueError, match=message):
        chopper.decode(raw)


def test_a_clock_gives_the_coordinates():
    item = SensorChopper(channels=1, window=2).decode(b"seconds,0\n0.5,1\n0.75,2\n2.5,3\n")
    chunk = SensorChopper(channels=1, window=2, offset=10.0).chop(item)
    assert chunk.coordinates.tolist() == [[0.75], [2.5]] and chunk.values[0].tolist() == [1.0, 2.0]
    assert chopped("x", SensorChopper(channels=1, window=2, offset=10.0), item).coordinates.tolist() == [
        [10.75],
        [12.5],
    ]


def test_a_grid_is_one_token_of_all_its_places():
    chopper = CategoryChopper(size=3, shape=(2, 2))
    torch.manual_seed(0)
    for hidden in (0, 5):
        tokenizer = CategoryTokenizer(chopper, 8, 16, position=None, hidden=hidden)
        one, two = ([[[0, 1], [2, 0]]], [[[1, 0], [2, 0]]])
        planned = pack(
            [[("g", chopper.decode(one))], [("g", chopper.decode(two))]], {"g": chopper}, 8, ("order", "seconds")
        )
        tokens = tokenizer(planned.chunks["g"])
        assert tokens.shape == (2, 8) and not torch.allclose(tokens[0], tokens[1])
    with pytest.raises(ValueError, match="size must be at least 2"):
        CategoryChopper(size=1)
    with pytest.raises(ValueError, match="empty must hold categories from 0 to 2, not \\[1, 3\\]"):
        CategoryChopper(size=3, shape=(2, 2), cut=1, empty=(1, 3))
    with pytest.raises(ValueError, match="empty must hold .* and needs cut to be at least 1"):
        CategoryChopper(size=3, shape=(2, 2), empty=(1,))
    with pytest.raises(ValueError, match="more than 1,048,576"):
        CategoryChopper(size=1024, shape=(1025,))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_grid_is_cut_along_its_first_axes(shape, moments, seed):
    """However it is cut, the vectors of a moment's tokens sum up to that of the whole grid, and all have its second."""
    values = np.random.default_rng(seed).integers(3, size=(moments, *shape))
    whole = CategoryChopper(size=3, shape=tuple(shape))
    torch.manual_seed(seed)
    table = CategoryTokenizer(whole, 8, 16, position=None)
    for cut in range(len(shape) + 1):
        chopper = CategoryChopper(size=3, shape=tuple(shape), cut=cut, rate=4)
        item = chopper.decode(values)
        chunk, pieces = chopper.chop(item), int(np.prod(shape[:cut]))
        assert chunk.count == chopper.count(item) == moments * pieces
        assert chunk.coordinates[:, 0].tolist() == [n / 4 for n in range(moments) for _ in range(pieces)]
        tokenizer = CategoryTokenizer(chopper, 8, 16, position=None)
        tokenizer.load_state_dict(table.state_dict())
        tokens = tokenizer(pack([[("g", item)]], {"g": chopper}, chunk.count, ("order", "seconds")).chunks["g"])
        expected = table(pack([[("g", whole.decode(values))]], {"g": whole}, moments, ("order", "seconds")).chunks["g"])
        torch.testing.assert_close(tokens.view(moments, pieces, 8).sum(1), expected.view(moments, 8))
    with pytest.raises(ValueError, match=f"cut must be from 0 to {len(shape)}, the number of axes in shape, not 7"):
        CategoryChopper(size=3, shape=tuple(shape), cut=7)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.booleans(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_things_of_a_grid_are_read_by_the_same_weights(rows, columns, properties, cut, split, hidden):
    """Each thing is embedded by its properties and its place; a token then combines its things."""
    chopper = CategoryChopper(size=4, shape=(rows, columns, properties), cut=cut)
    values = np.random.default_rng(hidden).integers(4, size=(2, rows, columns, properties))
    count = properties if split else 1
    torch.manual_seed(hidden)
    tokenizer = CategoryTokenizer(chopper, 8, 64, position=None, hidden=hidden, properties=count)
    chunk = pack([[("g", chopper.decode(values))]], {"g": chopper}, 64, ("order", "seconds")).chunks["g"]
    vectors = []
    for moment in values.reshape(2, -1, count):
        for number, thing in enumerate(moment):
            read = sum(tokenizer.embedding.weight[4 * k + value] for k, value in enumerate(thing))
            vectors.append(tokenizer.layers(read + tokenizer.thing.weight[number]))
    combined = torch.stack(vectors).view(2 * chopper.pieces, -1, hidden or 8)
    expected = combined.flatten(1) @ tokenizer.out.weight.T + tokenizer.out.bias if hidden else combined.sum(1)
    torch.testing.assert_close(tokenizer(chunk), expected)


def test_nothing_is_predicted_at_tokens_that_may_be_missing():
    task = NextItem(target="action", at="grid")
    grid = CategoryChopper(size=3, shape=(2, 2), cut=1, empty=(0,))
    task.choppers = {"grid": grid, "action": CategoryChopper(size=2, offset=0.6)}
    with pytest.raises(
        ValueError, match=r"the input 'grid' drops pieces \(option `empty`\), so a time step may have no"
    ):
        task.head({}, 8)


def test_wrong_properties_are_refused():
    chopper = CategoryChopper(size=4, shape=(2, 3))
    for options, message in (
        ({"properties": 4, "hidden": 5}, "properties must divide the 6 categories of a token, not 4"),
        ({"properties": 0, "hidden": 5}, "properties must divide the 6 categories of a token, not 0"),
        ({"hidden": -1}, "hidden must be at least 0, not -1"),
    ):
        with pytest.raises(ValueError, match=message):
            CategoryTokenizer(chopper, 8, 16, **options)


def test_dependence_through_all_layers_stops_at_the_present():
    """With `causal(seconds)` no token depends on a later one, nor on one without time, however deep the core is."""
    choppers = {
        "word": TextChopper(vocabulary=ByteEncoding(), generated=False),
        "return": RETURN,
        "state": STATE,
        "action": ACTION,
    }
    tokens = packed([[("word", "go"), *episode()]], choppers, in_time=False).tokens
    depends = reach((Causal(1) & SameSample(),) * 4, tokens)[0]
    seconds = tokens.position[0, :, 1].nan_to_num(nan=torch.inf)
    later = seconds[None, :] > seconds[:, None]
    assert not (depends & later)[seconds.isfinite()].any()
