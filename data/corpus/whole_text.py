"""A user's texts as a data set without splits: what `chopmix evaluate RUN --data PATH` reads."""

from __future__ import annotations

from collections.abc import Iterator

from ...tokenizers.files.reading import DataError
from ..base import Document
from ..datasets.text import Text


class WholeText(Text):
    """Text or JSONL files at `path` (a file or a pattern), read whole as whichever split is asked for; raises DataError
    where they hold no text."""

    splits = ("train", "val", "test")

    def __init__(self, *, path: str):
        super().__init__(train=path)
        self.path, self.splits = path, type(self).splits

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        some = False
        for document in self._read(self._paths("train")):
            some = some or bool(document.text)
            yield document
        if not some:
            raise DataError(f"{self.path} holds no text")
