"""Rules that examples tell: the answer follows from the rule, and no rule of val or test is trained on."""

import itertools

import pytest
from chopmix.data.datasets.rules import COUNTS, LENGTH, LETTERS, PLACES, UNMOVED, Rule, Rules, drawn, split_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

SPLITS = ("train", "val", "test")


@given(st.sampled_from(SPLITS), st.integers(0, 999), st.sampled_from([None, 0, 3, 8]))
@settings(max_examples=80, deadline=None)
def test_the_answer_and_every_example_follow_the_rule(split, number, examples):
    """As it is told in words, read here anew."""
    row = Rules(examples=examples).open(split)[number]
    told = dict(part.split(" ") for part in row["rule"].split(", "))
    assert told and set(told) <= {"places", "letters"}
    *shown, asked = row["prompt"].split(" ")
    for word, after in [each.split(">") for each in shown] + [(asked.removesuffix(">"), row["answer"])]:
        moved = [word[int(place) - 1] for place in told.get("places", "12345")]
        changed = dict(zip("abcdefghij", told.get("letters", "abcdefghij")))
        assert after == "".join(changed[letter] for letter in moved)
        assert len(set(word)) == len(word) == LENGTH and set(word) <= set(LETTERS)
    assert len(shown) in COUNTS if examples is None else len(shown) == examples


@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
@settings(max_examples=300, deadline=None)
def test_no_part_of_a_rule_of_val_or_test_is_trained_on(split, seed):
    rule = drawn(split, default_rng(seed))
    assert rule != Rule()
    assert rule.places == UNMOVED or rule.places in PLACES[split]
    assert rule.letters == LETTERS or (sorted(rule.letters) == list(LETTERS) and
                                       split_of(f"letters {rule.letters}") == split)  # fmt: skip


def test_all_places_are_in_one_split_each_and_train_has_every_place_for_every_other():
    every = [places for split in SPLITS for places in PLACES[split]]
    assert sorted([*every, UNMOVED]) == sorted(itertools.permutations(range(LENGTH)))
    assert all(len(PLACES[split]) >= 8 for split in ("val", "test"))
    assert {(n, place) for places in PLACES["train"] for n, place in enumerate(places)} == {
        (n, place) for n in range(LENGTH) for place in range(LENGTH)
    }


def test_kinds_are_as_likely():
    assert all("places" not in Rules(kinds=("letters",)).open("val")[number]["rule"] for number in range(50))
    rules = [drawn("val", default_rng(seed)) for seed in range(900)]
    kinds = [(rule.places == UNMOVED, rule.letters == LETTERS) for rule in rules]
    assert [250 < kinds.count(kind) < 350 for kind in ((True, False), (False, True), (False, False))] == [True] * 3


def test_examples_must_be_a_number_of_examples():
    with pytest.raises(ValueError, match="examples must be from 0 to 64, not -1"):
        Rules(examples=-1)
    with pytest.raises(ValueError, match="kinds must name one at least: places, letters, both"):
        Rules(kinds=())
