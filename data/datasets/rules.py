"""Rules that examples tell: each sample has a rule of its own, words that were changed by it, and a word to change.

    prompt   abc>cba fdgh>hgdf kl>            the rule here: backwards
    answer   lk

Rules are two changes one after the other; what those of val and test do, none in train does by another way: letters may
be moved before or after they are exchanged. Nothing needs to be downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from ..base import share_by_hash
from ..samples.dataset import Columns
from ..samples.made import Made, MadeDataset

LETTERS = "abcdefghijkl"
CHANGES: dict[str, Callable[[str], str]] = {
    "backwards": lambda word: word[::-1],
    "first to the end": lambda word: word[1:] + word[:1],
    "last to the front": lambda word: word[-1:] + word[:-1],
    "ends exchanged": lambda word: word[-1] + word[1:-1] + word[0],
    "without the first": lambda word: word[1:],
    "without the last": lambda word: word[:-1],
    "first twice": lambda word: word[0] + word,
    "last twice": lambda word: word + word[-1],
    "in order": lambda word: "".join(sorted(word)),
    "each the next letter": lambda word: "".join(LETTERS[(LETTERS.index(c) + 1) % len(LETTERS)] for c in word),
    "each the letter before": lambda word: "".join(LETTERS[LETTERS.index(c) - 1] for c in word),
    "only each second": lambda word: word[::2],
}
"""The changes, by their names."""
COUNTS = (0, 1, 2, 4, 8)
"""How many examples a prompt may have."""


WORDS = ["".join(word) for word in np.random.default_rng(0).choice(list(LETTERS), (40, 6))]
"""Words that tell two rules apart."""


def applied(rule: tuple[str, str], word: str) -> str:
    """The word after the two changes of a rule."""
    return CHANGES[rule[1]](CHANGES[rule[0]](word))


def rules_by_split() -> dict[str, list[tuple[str, str]]]:
    """Two different changes each, by the split: one of ten is in val, one in test, together with all others that do the
    same to every word. Those that change nothing are left out."""
    alike: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for rule in itertools.permutations(CHANGES, 2):
        told = tuple(applied(rule, word[:length]) for word in WORDS for length in (4, 5, 6))
        alike.setdefault(told, []).append(rule)
    alike.pop(tuple(word[:length] for word in WORDS for length in (4, 5, 6)), None)
    found: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
    for same in alike.values():
        share = int(share_by_hash(" > ".join(same[0])) * 10)
        found[{0: "val", 1: "test"}.get(share, "train")] += same
    return found


RULES = rules_by_split()


class Prompts(Made):
    """Samples of a rule each, with `examples` examples of it; None: as many as one of COUNTS."""

    def __init__(self, split: str, count: int, examples: int | None):
        super().__init__(split, count, "rule")
        self.examples = examples

    def __getitem__(self, number: int) -> Columns:
        random = self.random(number, 16)
        rule = RULES[self.split][random.integers(len(RULES[self.split]))]
        count = int(random.choice(COUNTS)) if self.examples is None else self.examples
        words = ["".join(random.choice(list(LETTERS), random.integers(4, 7))) for _ in range(count + 1)]
        changed = [applied(rule, word) for word in words]
        shown = "".join(f"{word}>{after} " for word, after in zip(words[:-1], changed))
        return {"prompt": f"{shown}{words[-1]}>", "answer": changed[-1], "rule": ", ".join(rule)}


class Rules(MadeDataset):
    """Columns: `prompt` (examples, and the word to change), `answer`, and `rule` in words. `examples` is how many each
    prompt has, 0 or more; null: 0, 1, 2, 4 or 8, as drawn. `samples` is how many one epoch has."""

    columns = ("prompt", "answer", "rule")

    def __init__(self, *, examples: int | None = None, samples: int = 1_000_000):
        if examples is not None and not 0 <= examples <= 64:
            raise ValueError(f"examples must be from 0 to 64, not {examples}")
        self.examples, self.samples = examples, samples

    def make(self, split: str, count: int) -> Prompts:
        return Prompts(split, count, self.examples)
