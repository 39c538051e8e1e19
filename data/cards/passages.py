"""Passages of the classic novels of the card `books`, each to be recognised: which book is it from?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from ..root import DataError
from ..samples import Listed, SampleCard, Samples
from .books import Books

LAST = 0.1
"""The share of every book that passages are taken from: its end, which `books` with `share: 0.9` has not read."""
PARTS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""Where in that end the passages of each split begin and stop."""


class Passages(SampleCard):
    """Columns: `text`, so many `words` that follow one another, and `label`, the title. `each` passages per book train, spread
    evenly; as many as fit into the rest of the book's end, one behind the other, validate and test."""

    splits = ("train", "val", "test")
    columns = ("text", "label")

    def __init__(self, *, words: int = 40, each: int = 100):
        if words < 1 or each < 1:
            raise ValueError("words and each must be at least 1")
        self.words, self.each = words, each

    def open(self, split: str) -> Samples:
        self.check_split(split)
        keys, rows = [], []
        for title, text in self._ends.items():
            first, last = (round(len(text) * place) for place in PARTS[split])
            found = list(passages(text[first:last], self.words))
            if len(found) < self.each and split == "train":
                raise DataError(
                    f"passages: {title} has {len(found)} passages of {self.words} words to train on, not {self.each}"
                )
            wanted = self.each if split == "train" else len(found)
            for number in range(wanted):
                keys.append(f"{title} {split} {number}")
                rows.append({"text": found[number * len(found) // wanted], "label": title})
        return Listed(keys, rows)

    @cached_property
    def _ends(self) -> dict[str, str]:
        """The end of every book by its title."""
        books = {document.key: document.text for document in Books().documents("train")}
        return {title: text[round(len(text) * (1 - LAST)) :] for title, text in books.items()}


def passages(text: str, words: int) -> Iterator[str]:
    """Stretches of so many words, one behind the other, with what stands between the words."""
    places = [word.span() for word in re.finditer(r"\S+", text)]
    for number in range(0, len(places) - words + 1, words):
        yield text[places[number][0] : places[number + words - 1][1]]
