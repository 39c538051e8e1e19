"""Rules that examples tell: the answer follows from the rule, and no rule of val or test is trained on."""

import numpy as np
import pytest
from chopmix.data.datasets.rules import CHANGES, COUNTS, LETTERS, RULES, Rules
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.sampled_from(["train", "val", "test"]), st.integers(0, 999), st.sampled_from([None, 0, 3, 8]))
@settings(max_examples=80, deadline=None)
def test_the_answer_and_every_example_follow_the_rule(split, number, examples):
    row = Rules(examples=examples).open(split)[number]
    first, second = row["rule"].split(", ")
    assert (first, second) in RULES[split]
    *shown, asked = row["prompt"].split(" ")
    for word, after in [each.split(">") for each in shown] + [(asked.removesuffix(">"), row["answer"])]:
        assert after == CHANGES[second](CHANGES[first](word)) and set(word) <= set(LETTERS) and after
    assert len(shown) in COUNTS if examples is None else len(shown) == examples


def test_no_rule_is_in_two_splits_and_every_change_is_trained_on():
    every = [rule for rules in RULES.values() for rule in rules]
    assert len(every) == len(set(every)) > 0.9 * len(CHANGES) * (len(CHANGES) - 1)
    assert all(len(RULES[split]) >= 8 for split in ("val", "test"))
    assert {name for place in (0, 1) for name in (rule[place] for rule in RULES["train"])} == set(CHANGES)


def test_no_rule_of_val_or_test_does_what_one_of_train_does():
    """By another way, such as letters that are exchanged before they are moved; and every rule changes something."""
    random = np.random.default_rng(7)
    words = ["".join(random.choice(list(LETTERS), random.integers(4, 7))) for _ in range(300)]
    done = {}
    for split, rules in RULES.items():
        for first, second in rules:
            told = tuple(CHANGES[second](CHANGES[first](word)) for word in words)
            assert told != tuple(words) and done.setdefault(told, split) == split


def test_examples_must_be_a_number_of_examples():
    with pytest.raises(ValueError, match="examples must be from 0 to 64, not -1"):
        Rules(examples=-1)
