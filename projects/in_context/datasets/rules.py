"""Rules that a model must learn from examples. Each sample has a different rule. Its prompt contains example words
before and after the rule was applied, and a word to which the rule must be applied.

    prompt   ntb>cgo bhn>oec tbh>          the rule: b, h, n and t become o, e, c and g
    answer   goe

No rule of val or test is also a rule of train, but a rule with few letters may be a part of a longer rule of train.
Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import ascii_lowercase as LETTERS
from typing import Any

import numpy as np

from ....data.generated import Made, MadeDataset
from ....data.key_hashes import share_by_hash

LENGTH = 3
"""The number of letters of a word. All letters of a word are different."""
MOST_LETTERS = 6
"""The maximum number of letters of a rule. The minimum is LENGTH."""
COUNTS = (0, 1, 2, 4, 8)
"""The possible numbers of examples in a prompt."""


@dataclass(frozen=True)
class Rule:
    """Letters and their replacements, in the same order. `Rule("bhnt", "oecg")` replaces b by o and h by e."""

    letters: str
    others: str

    def __call__(self, word: str) -> str:
        return "".join(self.others[self.letters.index(letter)] for letter in word)

    def __str__(self) -> str:
        return f"{self.letters}>{self.others}"


def split_of_rule(rule: Rule) -> str:
    """Returns the split (`train`, `val` or `test`) of a rule. The split is chosen by a hash; one tenth of the rules is
    in val and one tenth in test."""
    return {0: "val", 1: "test"}.get(int(share_by_hash(str(rule)) * 10), "train")


def drawn(split: str, random: np.random.Generator) -> Rule:
    """Returns a random rule of the split `split`. Its letters are in alphabetical order."""
    count = int(random.integers(LENGTH, MOST_LETTERS + 1))
    while True:
        letters, others = (random.permutation(list(LETTERS))[:count] for _ in range(2))
        rule = Rule("".join(sorted(letters)), "".join(others))
        if split_of_rule(rule) == split:
            return rule


def word_of(rule: Rule, random: np.random.Generator) -> str:
    """Returns a random word of LENGTH different letters of the rule."""
    return "".join(random.permutation(list(rule.letters))[:LENGTH])


class Prompts(Made):
    """Samples with one rule each. `examples` is the number of examples in a prompt; None: a random number from
    COUNTS."""

    def __init__(self, split: str, count: int, examples: int | None):
        super().__init__(split, count, "rule")
        self.examples = examples

    def caches(self, number: int) -> bool:
        return False

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        random = self.random(number, 16)
        rule = drawn(self.split, random)
        count = int(random.choice(COUNTS)) if self.examples is None else self.examples
        query = word_of(rule, random)

        def prompt() -> str:
            pairs = []
            while len(pairs) < count:
                if (word := word_of(rule, random)) != query:  # otherwise the answer could be copied
                    pairs.append(f"{word}>{rule(word)} ")
            return f"{''.join(pairs)}{query}>"

        return {"prompt": prompt, "answer": lambda: rule(query), "rule": lambda: str(rule)}


class Rules(MadeDataset):
    """Columns: `prompt` (examples and the word to change), `answer` (the changed word) and `rule`. `examples` is the
    number of examples in a prompt, from 0 to 64; null: a random choice of 0, 1, 2, 4 or 8. `samples` is the number of
    samples per epoch.

    Each rule uses only a few letters. A model can therefore first learn which letters occur in the examples, and then
    which of these letters is correct (benchmarks/LOG.md describes other variants)."""

    columns = ("prompt", "answer", "rule")

    def __init__(self, *, examples: int | None = None, samples: int = 1_000_000):
        if examples is not None and not 0 <= examples <= 64:
            raise ValueError(f"examples must be from 0 to 64, not {examples}")
        self.examples, self.samples = examples, samples

    def make(self, split: str, count: int) -> Prompts:
        return Prompts(split, count, self.examples)
