"""Rules in context: the answer follows from the rule, and no rule of val or test is in the training data."""

import pytest
from chopmix.projects.in_context.datasets.rules import (
    COUNTS,
    LENGTH,
    LETTERS,
    MOST_LETTERS,
    Rules,
    drawn,
    split_of_rule,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

SPLITS = ("train", "val", "test")


@given(st.sampled_from(SPLITS), st.integers(0, 999), st.sampled_from([None, 0, 3, 8]))
@settings(max_examples=80, deadline=None)
def test_the_answer_and_every_example_follow_the_rule(split, number, examples):
    row = Rules(examples=examples).open(split)[number]
    changed = dict(zip(*row["rule"].split(">"), strict=True))
    assert LENGTH <= len({*changed}) == len({*changed.values()}) <= MOST_LETTERS and {*changed} <= {*LETTERS}
    *pairs, query = row["prompt"].split(" ")
    for word, after in [pair.split(">") for pair in pairs] + [(query.removesuffix(">"), row["answer"])]:
        assert after == "".join(changed[letter] for letter in word)
        assert len({*word}) == len(word) == LENGTH
    assert len(pairs) in COUNTS if examples is None else len(pairs) == examples
    assert query.removesuffix(">") not in [pair.split(">")[0] for pair in pairs], "otherwise the answer could be copied"


@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
@settings(max_examples=300, deadline=None)
def test_no_rule_of_val_or_test_is_trained_on(split, seed):
    """A rule is in one split, independent of the order of its letters."""
    rule = drawn(split, default_rng(seed))
    assert split_of_rule(rule) == split and list(rule.letters) == sorted(rule.letters)


def test_numbers_of_letters_are_equally_frequent():
    counts = [len(drawn("val", default_rng(seed)).letters) for seed in range(800)]
    assert all(150 < counts.count(count) < 250 for count in range(LENGTH, MOST_LETTERS + 1))


def test_the_number_of_examples_is_checked():
    with pytest.raises(ValueError, match="examples must be from 0 to 64, not -1"):
        Rules(examples=-1)
