"""The source code of Python's standard library, 10 to 15 MB depending on the Python version. No download is needed."""

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
from ..base import Dataset, Document
from ..key_hashes import share_by_hash

SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
"""The names of folders that are skipped at any depth: folders of tests, and folders that do not belong to the standard
library."""


class PythonStdlib(Dataset):
    """One document per Python file. Its key is the path of the file in the library.

    All files of a top-level module are in the same split, selected by the hash of the name of this module: about 10 %
    of the modules are in `val`, 10 % in `test`. These files are skipped: empty files, files that declare another
    encoding than UTF-8 (PEP 263) or cannot be decoded, and files with the same text as an earlier file (`\\r\\n` counts
    as `\\n`).
    """

    splits = ("train", "val", "test")

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of every file, by its path in the library. Line ends are `\\n`. Raises DataError if there is no
        file."""
        root = Path(sysconfig.get_path("stdlib"))
        texts: dict[str, str] = {}
        unique: set[str] = set()
        for path in _python_files(root):
            text = _utf8_source(path.read_bytes())
            if text and text not in unique:
                unique.add(text)
                texts[path.relative_to(root).as_posix()] = text
        if not texts:
            raise DataError(f"{root} holds no Python source: this installation has no files of the standard library")
        return texts

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        return (Document(key, text) for key, text in self.files.items() if _split(key) == split)

    def source_hash(self, split: str) -> str:
        text = "".join(f"{document.key} {len(document.text)}\n{document.text}" for document in self.documents(split))
        return hashlib.sha256(text.encode()).hexdigest()

    def about(self) -> dict[str, object]:
        sizes = {split: [len(d.text.encode()) for d in self.documents(split)] for split in self.splits}
        files = {split: len(lengths) for split, lengths in sizes.items()}
        total = {split: sum(lengths) for split, lengths in sizes.items()}
        return {"python": platform.python_version(), "files": files, "bytes": total}


def _python_files(root: Path) -> list[Path]:
    """Returns the paths of all Python files that are not in a folder of SKIPPED, sorted by path."""
    paths = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED]
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def _utf8_source(source: bytes) -> str:
    """Returns the text of a source file with `\\n` as line ends. Returns an empty text if the file declares another
    encoding than UTF-8, or cannot be decoded."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
        text = source.decode(encoding) if encoding in ("utf-8", "utf-8-sig") else ""
    except (SyntaxError, UnicodeDecodeError):
        return ""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split(key: str) -> str:
    """Returns the split of a file with this path. It depends on the name of the top-level module only."""
    share = share_by_hash(key.split("/")[0].removesuffix(".py"))
    return "val" if share < 0.1 else "test" if share < 0.2 else "train"
