"""Tiny Shakespeare: 1,115,394 characters of plays. The first 90 % are train, the last 10 % are val; this is the split
of nanoGPT."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from functools import cached_property
from http.client import HTTPException
from pathlib import Path

from ...files.reading import SMALL, DataError, read_bytes
from ...files.writing import write_text
from ..base import Dataset, Document, data_root

ADDRESS = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


class TinyShakespeare(Dataset):
    """One document per split, read from `tiny_shakespeare/input.txt` in the data root. If this file does not exist, it
    is downloaded."""

    def addresses(self) -> list[str]:
        return [] if self.file.exists() else [ADDRESS]

    @property
    def file(self) -> Path:
        """The path of the text file."""
        return data_root() / "tiny_shakespeare" / "input.txt"

    @cached_property
    def text(self) -> str:
        """The text of both splits. Raises DataError if the file cannot be downloaded, or if its SHA-256 is not
        SHA256."""
        path = self.file
        try:
            content = read_bytes(path, SMALL) if path.exists() else _download(path)
        except (OSError, HTTPException) as error:
            raise DataError(f"{path} is missing and cannot be downloaded ({error}); save {ADDRESS} there") from None
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise DataError(f"{path} is not the text of {ADDRESS}: its SHA-256 is not {SHA256}")
        return content.decode()

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        cut = int(0.9 * len(self.text))
        yield Document(split, self.text[:cut] if split == "train" else self.text[cut:])

    def source_hash(self, split: str) -> str:
        self.check_split(split)
        return hashlib.sha256(self.text.encode()).hexdigest()

    def about(self) -> dict[str, object]:
        return {"source": ADDRESS, "bytes": len(self.text.encode()), "characters": len(self.text)}


def _download(path: Path) -> bytes:
    """Downloads the text and returns its bytes. Writes it to `path` if its SHA-256 is SHA256. Raises OSError or
    HTTPException if the download or the writing fails."""
    with urllib.request.urlopen(ADDRESS, timeout=30) as response:
        content = response.read(SMALL)
    if hashlib.sha256(content).hexdigest() == SHA256:
        write_text(path, content.decode())
    return content
