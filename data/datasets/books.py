"""Classic English novels, 16 M characters to train on and 0.8 M of another book to validate. One document per book."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...files.reading import DataError, read_packed_text
from ..base import Dataset, Document, data_root
from ..fingerprint import hash_files

TITLE = re.compile(r"^# Title: (.*)$", re.MULTILINE)


class Books(Dataset):
    """Reads `books/train.txt.xz` and `books/val.txt.xz` in the data root; a book begins at a line `# Title: ...`.

    With `share` less than 1 (but above 0) only that much of every training book is read, from its beginning on; the
    dataset `passages` reads ends that a `share` of 0.9 leaves out. Raises ValueError for another `share`.
    """

    def __init__(self, *, share: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share must be more than 0 and at most 1, not {share:g}")
        self.share = share

    def path(self, split: str) -> Path:
        """The file of a split. Raises DataError for a split or a file that does not exist."""
        self.check_split(split)
        found = data_root() / "books" / f"{split}.txt.xz"
        if not found.exists():
            needed = "put a text there, packed with xz; a book begins at a line '# Title: ...'"
            raise DataError(f"{found} is not there: {needed}")
        return found

    def documents(self, split: str) -> Iterator[Document]:
        text = read_packed_text(self.path(split))
        titles = list(TITLE.finditer(text))
        starts = [0, *(title.start() for title in titles[1:])]
        names = [title[1] for title in titles] or [split]
        for name, start, end in zip(names, starts, [*starts[1:], len(text)], strict=True):
            length = round((end - start) * self.share) if split == "train" else end - start
            yield Document(name, text[start : start + length])

    def source_hash(self, split: str) -> str:
        return hash_files([self.path(split)])

    def about(self) -> dict[str, object]:
        return {"packed_bytes": {split: self.path(split).stat().st_size for split in self.splits}}
