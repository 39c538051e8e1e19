"""Classic English novels: 16 M characters for training, and another book with 0.8 M characters for validation. Each
book is a document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...files.reading import DataError, read_packed_text
from ..base import Dataset, Document, data_root
from ..fingerprint import hash_files

TITLE = re.compile(r"^# Title: (.*)$", re.MULTILINE)


class Books(Dataset):
    """Reads `books/train.txt.xz` and `books/val.txt.xz` in the data root. A book begins at a line `# Title: ...`.

    With a `share` below 1, only the first part of each training book is read, for example 0.9 of its characters. The
    data set `passages` uses the last 0.1 of each training book, so 0.9 excludes this part. Raises ValueError unless 0 <
    `share` <= 1.
    """

    def __init__(self, *, share: float = 1.0):
        if not 0 < share <= 1:
            raise ValueError(f"share must be more than 0 and at most 1, not {share:g}")
        self.share = share

    def path(self, split: str) -> Path:
        """Returns the path of the file of a split. Raises DataError if the split or the file does not exist."""
        self.check_split(split)
        file = data_root() / "books" / f"{split}.txt.xz"
        if not file.exists():
            needed = "add a text file compressed with xz, in which a book begins at a line '# Title: ...'"
            raise DataError(f"{file} is missing: {needed}")
        return file

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
