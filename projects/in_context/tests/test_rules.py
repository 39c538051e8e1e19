"""Rules that examples tell: the answer follows from the rule, and no rule of val or test is trained on."""

import pytest
from chopmix.projects.in_context.datasets.rules import COUNTS, LENGTH, LETTERS, MOST, Rules, drawn, split_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

SPLITS = ("train", "val", "test")


@given(st.sampled_from(SPLITS), st.integers(0, 999), st.sampled_from([None, 0, 3, 8]))
@settings(max_examples=80, deadline=None)
def test_the_answer_and_every_example_follow_the_rule(split, number, examples):
    """As it is told, read here anew."""
    row = Rules(examples=examples).open(split)[number]
    changed = dict(zip(*row["rule"].split(">"), strict=True))
    assert LENGTH <= len({*changed}) == len({*changed.values()}) <= MOST and {*changed} <= {*LETTERS}
    *shown, asked = row["prompt"].split(" ")
    for word, after in [each.split(">") for each in shown] + [(asked.removesuffix(">"), row["answer"])]:
        assert after == "".join(changed[letter] for letter in word)
        assert len({*word}) == len(word) == LENGTH
    assert len(shown) in COUNTS if examples is None else len(shown) == examples
    assert asked.removesuffix(">") not in [each.split(">")[0] for each in shown], "else its answer could be copied"


@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
@settings(max_examples=300, deadline=None)
def test_no_rule_of_val_or_test_is_trained_on(split, seed):
    """A rule is in one split, in whatever order its letters were drawn."""
    rule = drawn(split, default_rng(seed))
    assert split_of(rule) == split and list(rule.letters) == sorted(rule.letters)


def test_rules_have_as_often_each_number_of_letters():
    counts = [len(drawn("val", default_rng(seed)).letters) for seed in range(800)]
    assert all(150 < counts.count(count) < 250 for count in range(LENGTH, MOST + 1))


def test_examples_must_be_a_number_of_examples():
    with pytest.raises(ValueError, match="examples must be from 0 to 64, not -1"):
        Rules(examples=-1)
