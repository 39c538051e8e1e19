"""Rules that examples tell: each sample has a rule of its own, words that were changed by it, and a word to change.

    prompt   abcde>edcba fgahb>bhagf dgcje>       the rule here: letters change places, the last is the first
    answer   ejcgd

Letters change places, or each letter becomes another, or both. No rule of val or test is one of train: neither the
places nor the letters. Nothing needs to be downloaded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..base import share_by_hash
from ..samples.dataset import Columns
from ..samples.made import Made, MadeDataset

LETTERS = "abcdefghij"
LENGTH = 5
"""The letters of a word, all different."""
COUNTS = (0, 1, 2, 4, 8)
"""How many examples a prompt may have."""
UNMOVED = tuple(range(LENGTH))
KINDS = ("places", "letters", "both")
"""What a rule changes."""


@dataclass(frozen=True)
class Rule:
    """The letter from each of `places` (counted from 0), and for each of LETTERS the one that it becomes."""

    places: tuple[int, ...] = UNMOVED
    letters: str = LETTERS

    def __call__(self, word: str) -> str:
        return "".join(self.letters[LETTERS.index(word[place])] for place in self.places)

    def __str__(self) -> str:
        moved = "places " + "".join(str(place + 1) for place in self.places) if self.places != UNMOVED else ""
        return ", ".join(filter(None, (moved, f"letters {self.letters}" if self.letters != LETTERS else "")))


def split_of(changed: str) -> str:
    """The split whose rules have these places or letters: one of ten is in val, one in test."""
    return {0: "val", 1: "test"}.get(int(share_by_hash(changed) * 10), "train")


PLACES = {
    split: [each for each in itertools.permutations(UNMOVED) if each != UNMOVED and split_of(str(Rule(each))) == split]
    for split in ("train", "val", "test")
}
"""The places that rules of each split have."""


def drawn(split: str, random: np.random.Generator, kinds: Sequence[str] = KINDS) -> Rule:
    """A rule of a split; all `kinds` are as likely."""
    kind, places, letters = kinds[random.integers(len(kinds))], UNMOVED, LETTERS
    if kind != "letters":
        places = PLACES[split][random.integers(len(PLACES[split]))]
    while kind != "places" and (letters == LETTERS or split_of(f"letters {letters}") != split):
        letters = "".join(random.permutation(list(LETTERS)))
    return Rule(places, letters)


class Prompts(Made):
    """Samples of a rule each, of one of `kinds`, with `examples` examples of it; None: as many as one of COUNTS."""

    def __init__(self, split: str, count: int, examples: int | None, kinds: Sequence[str]):
        super().__init__(split, count, "rule")
        self.examples, self.kinds = examples, kinds

    def __getitem__(self, number: int) -> Columns:
        random = self.random(number, 16)
        rule = drawn(self.split, random, self.kinds)
        count = int(random.choice(COUNTS)) if self.examples is None else self.examples
        words = ["".join(random.permutation(list(LETTERS))[:LENGTH]) for _ in range(count + 1)]
        shown = "".join(f"{word}>{rule(word)} " for word in words[:-1])
        return {"prompt": f"{shown}{words[-1]}>", "answer": rule(words[-1]), "rule": str(rule)}


class Rules(MadeDataset):
    """Columns: `prompt` (examples, and the word to change), `answer`, and `rule` in words. `examples` is how many each
    prompt has, 0 or more; null: 0, 1, 2, 4 or 8, as drawn. `kinds` are those of the rules: letters change `places`,
    each of the `letters` becomes another, or `both`. `samples` is how many one epoch has."""

    columns = ("prompt", "answer", "rule")

    def __init__(
        self, *, examples: int | None = None, samples: int = 1_000_000,
        kinds: tuple[Literal["places", "letters", "both"], ...] = KINDS,
    ):  # fmt: skip
        if examples is not None and not 0 <= examples <= 64:
            raise ValueError(f"examples must be from 0 to 64, not {examples}")
        if not kinds:
            raise ValueError(f"kinds must name one at least: {', '.join(KINDS)}")
        self.examples, self.samples, self.kinds = examples, samples, kinds

    def make(self, split: str, count: int) -> Prompts:
        return Prompts(split, count, self.examples, self.kinds)
