"""The source of Python's own standard library, 10 to 15 MB by version: a corpus of code on every machine."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from ...files.reading import DataError
from ..base import Dataset, Document, share_by_hash

LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
"""Folders that are passed over at any depth: tests, and what is not the standard library's."""


class PythonStdlib(Dataset):
    """One document per file, keyed by its path in the library.

    A whole top-level module is in one split, by the hash of its name: a tenth in `val`, a tenth in `test`. Files that
    are empty, not UTF-8 (PEP 263) or equal to an earlier one (but for newlines) are passed over.
    """

    splits = ("train", "val", "test")

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of every file, newlines as `\\n`, by its path in the library. Raises DataError where there is no
        file."""
        root = Path(sysconfig.get_path("stdlib"))
        found: dict[str, str] = {}
        seen: set[str] = set()
        for path in _python_files(root):
            text = _utf8_source(path.read_bytes())
            if text and text not in seen:
                seen.add(text)
                found[path.relative_to(root).as_posix()] = text
        if not found:
            raise DataError(f"{root} holds no Python source: this Python comes without its standard library's files")
        return found

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        return (Document(key, text) for key, text in self.files.items() if _split(key) == split)

    def source_hash(self, split: str) -> str:
        text = "".join(f"{document.key} {len(document.text)}\n{document.text}" for document in self.documents(split))
        return hashlib.sha256(text.encode()).hexdigest()

    def about(self) -> dict[str, object]:
        sizes = {split: [len(d.text.encode()) for d in self.documents(split)] for split in self.splits}
        files = {split: len(found) for split, found in sizes.items()}
        total = {split: sum(found) for split, found in sizes.items()}
        return {"python": platform.python_version(), "files": files, "bytes": total}


def _python_files(root: Path) -> list[Path]:
    """All Python files outside the folders LEFT_OUT, sorted by path."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in LEFT_OUT]
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _utf8_source(source: bytes) -> str:
    """The text of a file that declares UTF-8 (or nothing) and holds it; else an empty text."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode(encoding) if encoding in ("utf-8", "utf-8-sig") else ""
    except (SyntaxError, UnicodeDecodeError):
        return ""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split(key: str) -> str:
    """The split of a file, by its top-level module."""
    share = share_by_hash(key.split("/")[0].removesuffix(".py"))
    return "val" if share < 0.1 else "test" if share < 0.2 else "train"
