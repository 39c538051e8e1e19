"""Passages of the classic novels of the dataset `books`, each to be recognised: which book is it from?"""

from __future__ import annotations

import re
from functools import cached_property

from ...tokenizers.files.reading import DataError
from ..samples.dataset import Listed, SampleDataset, Samples
from .books import Books

LAST = 0.1
"""The share of every book that passages are taken from: its end, which `books` with `share: 0.9` has not read."""
PARTS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""Where in that end the passages of each split begin and stop."""


class Passages(SampleDataset):
    """Columns: `text`, so many `words` that follow one another, and `label`, the title. `each` passages per book train,
    spread evenly; as many as fit into the rest of the book's end, one behind the other, validate and test."""

    splits = ("train", "val", "test")
    columns = ("text", "label")

    def __init__(self, *, words: int = 40, each: int = 100):
        if words < 1 or each < 1:
            raise ValueError("words and each must be at least 1")
        self.words, self.each = words, each

    def open(self, split: str) -> Samples:
        self.check_split(split)
        keys, rows = [], []
        for title, end in self._ends.items():
            words = [word.span() for word in re.finditer(r"\S+", end)][1:]  # the first may be the end of a word
            first, last = (round(len(words) * place) for place in PARTS[split])
            starts = range(first, last - self.words + 1, self.words)
            if len(starts) < self.each and split == "train":
                raise DataError(
                    f"passages: {title} has {len(starts)} passages of {self.words} words to train on, not {self.each}"
                )
            count = self.each if split == "train" else len(starts)
            for number in range(count):
                start = starts[number * len(starts) // count]
                keys.append(f"{title} {split} {number}")
                rows.append({"text": end[words[start][0] : words[start + self.words - 1][1]], "label": title})
        return Listed(keys, rows)

    @cached_property
    def _ends(self) -> dict[str, str]:
        """The end of every book by its title."""
        books = {document.key: document.text for document in Books().documents("train")}
        return {title: text[round(len(text) * (1 - LAST)) :] for title, text in books.items()}
