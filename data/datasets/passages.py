"""Passages from the classic novels of the data set `books`. The label of a passage is the title of its book."""

from __future__ import annotations

import re
from functools import cached_property

from ...files.reading import DataError
from ..sample_dataset import SampleDataset
from ..samples import Listed, Samples
from .books import Books

LAST = 0.1
"""The share of every training book, at its end, from which passages are taken. The data set `books` with `share: 0.9`
does not read this end."""
PARTS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""By split, the part of this end of each book from which the passages are taken: (from, to), as shares of its words."""


class Passages(SampleDataset):
    """Columns: `text` (`words` consecutive words) and `label` (the title of the book). The last tenth of every training
    book is divided into three parts, for train, val and test. Train has `each` passages per book, spread evenly over
    the first part. In val and test, consecutive passages fill the second and third part. Passages do not overlap.
    Raises ValueError if `words` or `each` is below 1."""

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
            words = [word.span() for word in re.finditer(r"\S+", end)][1:]  # the first match may be the end of a word
            first, last = (round(len(words) * fraction) for fraction in PARTS[split])
            starts = range(first, last - self.words + 1, self.words)
            if len(starts) < self.each and split == "train":
                available = f"{len(starts)} passages of {self.words} words"
                raise DataError(f"passages: {title} has {available} for training, not {self.each}")
            count = self.each if split == "train" else len(starts)
            for number in range(count):
                start = starts[number * len(starts) // count]
                keys.append(f"{title} {split} {number}")
                rows.append({"text": end[words[start][0] : words[start + self.words - 1][1]], "label": title})
        return Listed(keys, rows)

    @cached_property
    def _ends(self) -> dict[str, str]:
        """The end of every training book (the share LAST of its characters), by title."""
        books = {document.key: document.text for document in Books().documents("train")}
        return {title: text[round(len(text) * (1 - LAST)) :] for title, text in books.items()}
