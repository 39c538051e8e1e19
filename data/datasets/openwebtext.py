"""OpenWebText: 8 million web pages, streamed from the Hugging Face hub. It is an open reproduction of the training set
of GPT-2."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ...files.reading import DataError
from ..base import Dataset, Document
from ..key_hashes import split_by_hash

REPOSITORY = "Skylion007/openwebtext"
VAL_SHARE = 0.0005
"""The share of the documents that are used for validation, equal to that of nanoGPT."""


class OpenWebText(Dataset):
    """Each web page is a document. With `limit` (at least 1), only the first `limit` pages are read. The hash of the
    number of a page determines whether it is in train or val."""

    def __init__(self, *, limit: int | None = None):
        """Raises ValueError if `limit` is below 1."""
        if limit is not None and limit < 1:
            raise ValueError(f"limit: {limit} must be at least 1")
        self.limit = limit

    def addresses(self) -> list[str]:
        return [f"hf://datasets/{REPOSITORY}"]

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        try:
            from datasets import load_dataset
        except ImportError:
            command = "pip install 'chopmix[hub]'"
            raise DataError(f"the data set openwebtext needs the library datasets: {command}") from None
        try:
            pages = load_dataset(REPOSITORY, split="train", streaming=True)
            for number, page in enumerate(islice(pages, self.limit)):
                if split_by_hash(str(number), VAL_SHARE) == split:
                    yield Document(f"{REPOSITORY}/{number}", page["text"])
        except OSError as error:  # no network, or a refused request
            raise DataError(
                f"{REPOSITORY} cannot be streamed from the hub ({type(error).__name__}); without a network connection, "
                "provide its pages as JSONL (one page per line, under 'text') and use the data set text: "
                "{use: text, train: 'pages/*.jsonl'}"
            ) from error

    def source_hash(self, split: str) -> str:
        self.check_split(split)
        return f"{REPOSITORY} {split} {self.limit}"

    def about(self) -> dict[str, object]:
        return {"source": REPOSITORY, "limit": self.limit}
