"""Leaks of targets to their predictors: the fast proof agrees with a search through all layers, for any graph and
layout."""

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

# beartype checks a random item of a tuple; hypothesis warns of random numbers that it does not control
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
    """Any tokens; some of them predict other tokens, or targets that are no tokens (-1)."""
    drawn = draw(st.one_of(tokens(), packed_tokens()))
    count = drawn.sample.numel()
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(-1, count - 1)), max_size=8))
    same_row = [(p, h) for p, h in pairs if h < 0 or p // drawn.shape[1] == h // drawn.shape[1]]
    return batch_of(drawn, [p for p, _ in same_row], [h for _, h in same_row])


for_layers_and_batches = given(st.lists(graphs(), min_size=1, max_size=3), batches())


@for_layers_and_batches
def test_the_check_raises_exactly_where_the_search_finds_a_leak(layers, batch):
    """Twice: a batch that is safe is not searched again; a batch with a leak raises again."""
    bad, check = leaks(batch, layers)["task"], LeakCheck()
    for _ in range(2):
        if bad:
            with pytest.raises(LeakError, match="model.attention leaks: task 'task' predicts token"):
                check.check(batch, layers)
        else:
            check.check(batch, layers)


@for_layers_and_batches
def test_targets_that_are_proven_by_the_form_of_the_graph_do_not_leak(layers, batch):
    drawn, targets = batch.main.tokens, batch.targets["task"]
    places, carriers = carried(drawn, targets)
    safe = proven(drawn, places, carriers, layers)
    bad = set(leaks(batch, layers)["task"])
    assert not bad & {(int(p), int(h)) for p, h, fine in zip(places, carriers, safe) if fine}


def test_prefixes_are_proven_by_the_form_of_the_graph_without_a_search():
    rows = laid_out([[1, 1, 1, 1, 2, 2, 2]], [[2, 2, 1, 1, 2, 1, 1]])
    check = LeakCheck()
    check.check(batch_of(rows, [1, 2, 5], [2, 3, 6]), [PREFIX] * 4)
    assert (check.by_form, check.searched) == (3, 0)


def test_a_layout_is_searched_once_at_any_position_in_a_row():
    """The first and the second sample of a row have the same layout; another length is another layout."""
    wide = [Causal() | Window(1.0)]
    check = LeakCheck()
    for rows, places in (([[1, 1, 1]], [0, 1]), ([[5, 5, 3, 3, 3]], [2, 3]), ([[0, 7, 7, 7]], [1, 2])):
        check.check(batch_of(laid_out(rows, axes=1), places, [p + 1 for p in places]), wide)
        assert check.searched == 1
    check.check(batch_of(laid_out([[1, 1, 1, 1]], axes=1), [0, 1, 2], [1, 2, 3]), wide)
    assert check.searched == 2


def test_the_error_names_the_positions_of_a_leak_in_the_row():
    with pytest.raises(LeakError, match="predicts token 4 at slot 3, which can read that token"):
        LeakCheck().check(batch_of(laid_out([[1, 1, 2, 2, 2]]), [3], [4]), [Causal() | Edges(((2, 1),), "slots")])


@for_layers_and_batches
def test_an_input_is_unused_if_no_supervised_slot_reaches_its_tokens(layers, batch):
    drawn = batch.main.tokens.select(slice(4))
    rows, n = drawn.shape
    reached, read, present = reach(layers, drawn), set(), set()
    for place in batch.targets["task"].slots.tolist():
        row, slot = divmod(place, n)
        if row < rows and drawn.sample[row, slot]:
            read |= set(drawn.input[row][reached[row, slot]].tolist())
            present |= set(drawn.input[row][drawn.sample[row] == drawn.sample[row, slot]].tolist())
    assert unused_inputs(batch, layers) == sorted(present - read - {0})


def test_an_instruction_after_all_actions_is_unused():
    causal = Causal() & SameSample()
    rows = laid_out([[1] * 6] * 2, [[2, 3, 2, 3, 1, 1], [1, 1, 2, 3, 2, 3]])
    assert unused_inputs(batch_of(rows.select(slice(1)), [0, 2], [1, 3]), [causal]) == [1]
    assert unused_inputs(batch_of(rows.select(slice(1, 2)), [2, 4], [3, 5]), [causal]) == []
    of_encoder = batch_of(rows, [0], [1])
    of_encoder.targets["task"] = Targets(values=torch.zeros(1, dtype=torch.long), of_encoder=True)
    assert unused_inputs(of_encoder, [causal]) == []
    unjudged_first_sample = laid_out([[1, 1, 2, 2, 2, 2]], [[1, 1, 2, 3, 2, 3]])  # the first sample has no target
    assert unused_inputs(batch_of(unjudged_first_sample, [2, 4], [3, 5]), [causal]) == []
