"""Rules that examples tell: each sample has a rule of its own, words that were changed by it, and another to change.

    prompt   ntb>cgo bhn>oec tbh>          the rule here: b, h, n and t become o, e, c and g
    answer   goe

No rule of val or test is one of train, but one of few letters may be a part of a longer one that was trained on.
Nothing needs to be downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase as LETTERS
from typing import Any

import numpy as np

from ....data.base import share_by_hash
from ....data.samples import Made, MadeDataset

LENGTH = 3
"""The letters of a word, all different."""
MOST = 6
"""The most letters of a rule; it has LENGTH at least."""
COUNTS = (0, 1, 2, 4, 8)
"""How many examples a prompt may have."""


@dataclass(frozen=True)
class Rule:
    """Letters, and for each of them the one that it becomes: `Rule("bhnt", "oecg")`."""

    letters: str
    others: str

    def __call__(self, word: str) -> str:
        return "".join(self.others[self.letters.index(letter)] for letter in word)

    def __str__(self) -> str:
        return f"{self.letters}>{self.others}"


def split_of(rule: Rule) -> str:
    """The split that has this rule: one of ten is in val, one in test."""
    return {0: "val", 1: "test"}.get(int(share_by_hash(str(rule)) * 10), "train")


def drawn(split: str, random: np.random.Generator) -> Rule:
    """A rule of a split; its letters are in the order of the alphabet."""
    count = int(random.integers(LENGTH, MOST + 1))
    while True:
        letters, others = (random.permutation(list(LETTERS))[:count] for _ in range(2))
        rule = Rule("".join(sorted(letters)), "".join(others))
        if split_of(rule) == split:
            return rule


def word_of(rule: Rule, random: np.random.Generator) -> str:
    """A word of the rule's letters, all different."""
    return "".join(random.permutation(list(rule.letters))[:LENGTH])


class Prompts(Made):
    """Samples of a rule each, with `examples` examples of it; None: as many as one of COUNTS."""

    def __init__(self, split: str, count: int, examples: int | None):
        super().__init__(split, count, "rule")
        self.examples = examples

    def caches(self, number: int) -> bool:
        return False

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number, 16)
        rule = drawn(self.split, random)
        count = int(random.choice(COUNTS)) if self.examples is None else self.examples
        asked = word_of(rule, random)

        def prompt() -> str:
            shown = []
            while len(shown) < count:
                if (word := word_of(rule, random)) != asked:  # else its answer could be copied
                    shown.append(f"{word}>{rule(word)} ")
            return f"{''.join(shown)}{asked}>"

        return {"prompt": prompt, "answer": lambda: rule(asked), "rule": lambda: str(rule)}


class Rules(MadeDataset):
    """Columns: `prompt` (examples, and the word to change), `answer`, and `rule`. `examples` is how many each prompt
    has, 0 or more; null: 0, 1, 2, 4 or 8, as drawn. `samples` is how many one epoch has.

    Each rule has letters of its own, few of the alphabet: what follows can then be narrowed down to them before it is
    known which of them it is (benchmarks/LOG.md tells what was tried)."""

    columns = ("prompt", "answer", "rule")

    def __init__(self, *, examples: int | None = None, samples: int = 1_000_000):
        if examples is not None and not 0 <= examples <= 64:
            raise ValueError(f"examples must be from 0 to 64, not {examples}")
        self.examples, self.samples = examples, samples

    def make(self, split: str, count: int) -> Prompts:
        return Prompts(split, count, self.examples)
