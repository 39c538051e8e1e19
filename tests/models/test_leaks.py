"""The proof that no target reaches its predictor, against a search through all layers, over all graphs and layouts."""

from __future__ import annotations

import pytest
import torch
from chopmix.models.attention.graph import Causal, Edges, From, SameSample, Window
from chopmix.models.attention.mask import reach
from chopmix.models.batch import Batch, SetPlan, Targets
from chopmix.models.leaks import LeakCheck, LeakError, carried, leaks, proven, unused_inputs
from drawn import graphs, laid_out, packed_tokens, tokens
from hypothesis import given
from hypothesis import strategies as st

# beartype picks at random which item of a tuple it looks at; hypothesis would rather nobody did
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
PREFIX = SameSample() & (Causal() | From((2,)))


def batch_of(drawn, places: list[int], carriers: list[int]) -> Batch:
    count = len(places)
    targets = Targets(values=torch.zeros(count, dtype=torch.long), slots=torch.tensor(places, dtype=torch.long),
                      carriers=torch.tensor(carriers, dtype=torch.long), count=count)  # fmt: skip
    return Batch(main=SetPlan(tokens=drawn, chunks={}), targets={"task": targets})


@st.composite
def batches(draw) -> Batch:
    """Any tokens, of which some are judged by some others, or by none."""
    drawn = draw(st.one_of(tokens(), packed_tokens()))
    count = drawn.sample.numel()
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(-1, count - 1)), max_size=8))
    same_row = [(p, h) for p, h in pairs if h < 0 or p // drawn.shape[1] == h // drawn.shape[1]]
    return batch_of(drawn, [p for p, _ in same_row], [h for _, h in same_row])


@given(st.lists(graphs(), min_size=1, max_size=3), batches())
def test_it_raises_exactly_where_the_search_finds_a_leak(layers, batch):
    """Twice: what was found safe before is not looked at again, what leaks leaks again."""
    bad, check = leaks(batch, layers)["task"], LeakCheck()
    for _ in range(2):
        if bad:
            with pytest.raises(LeakError, match="model.attention leaks: task 'task' predicts token"):
                check.check(batch, layers)
        else:
            check.check(batch, layers)


@given(st.lists(graphs(), min_size=1, max_size=3), batches())
def test_what_is_proven_by_form_does_not_leak(layers, batch):
    drawn, targets = batch.main.tokens, batch.targets["task"]
    places, carriers = carried(drawn, targets)
    safe = proven(drawn, places, carriers, layers)
    bad = set(leaks(batch, layers)["task"])
    assert not bad & {(int(p), int(h)) for p, h, fine in zip(places, carriers, safe) if fine}


def test_prefixes_are_proven_by_form_and_nothing_is_searched():
    rows = laid_out([[1, 1, 1, 1, 2, 2, 2]], [[2, 2, 1, 1, 2, 1, 1]])
    check = LeakCheck()
    check.check(batch_of(rows, [1, 2, 5], [2, 3, 6]), [PREFIX] * 4)
    assert (check.by_form, check.searched) == (3, 0)


def test_a_layout_is_searched_once_wherever_it_stands():
    """Packed first and packed second the same sample is the same layout; another length is another one."""
    wide = [Causal() | Window(1.0)]
    check = LeakCheck()
    for rows, places in (([[1, 1, 1]], [0, 1]), ([[5, 5, 3, 3, 3]], [2, 3]), ([[0, 7, 7, 7]], [1, 2])):
        check.check(batch_of(laid_out(rows, axes=1), places, [p + 1 for p in places]), wide)
        assert check.searched == 1
    check.check(batch_of(laid_out([[1, 1, 1, 1]], axes=1), [0, 1, 2], [1, 2, 3]), wide)
    assert check.searched == 2


def test_the_leak_is_named_by_its_places_in_the_row():
    with pytest.raises(LeakError, match="predicts token 4 at slot 3, which can read that token"):
        LeakCheck().check(batch_of(laid_out([[1, 1, 2, 2, 2]]), [3], [4]), [Causal() | Edges(((2, 1),), "slots")])


@given(st.lists(graphs(), min_size=1, max_size=3), batches())
def test_an_input_is_unread_where_no_supervised_slot_reaches_a_token_of_it(layers, batch):
    drawn = batch.main.tokens.select(slice(4))
    rows, n = drawn.shape
    reached, read, there = reach(layers, drawn), set(), set()
    for place in batch.targets["task"].slots.tolist():
        row, slot = divmod(place, n)
        if row < rows and drawn.sample[row, slot]:
            read |= set(drawn.input[row][reached[row, slot]].tolist())
            there |= set(drawn.input[row][drawn.sample[row] == drawn.sample[row, slot]].tolist())
    assert unused_inputs(batch, layers) == sorted(there - read - {0})


def test_an_instruction_behind_all_actions_is_unread():
    causal = Causal() & SameSample()
    rows = laid_out([[1] * 6] * 2, [[2, 3, 2, 3, 1, 1], [1, 1, 2, 3, 2, 3]])
    assert unused_inputs(batch_of(rows.select(slice(1)), [0, 2], [1, 3]), [causal]) == [1]
    assert unused_inputs(batch_of(rows.select(slice(1, 2)), [2, 4], [3, 5]), [causal]) == []
    nowhere = batch_of(rows, [0], [1])
    nowhere.targets["task"] = Targets(values=torch.zeros(1, dtype=torch.long), of_encoder=True)
    assert unused_inputs(nowhere, [causal]) == []
    apart = laid_out([[1, 1, 2, 2, 2, 2]], [[1, 1, 2, 3, 2, 3]])  # the first sample is not judged
    assert unused_inputs(batch_of(apart, [2, 4], [3, 5]), [causal]) == []
