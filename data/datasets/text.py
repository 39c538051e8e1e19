"""User text corpora: plain text files (each file is a document), or JSONL files (each line is a document)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...files.reading import DataError, as_text, matching, read_lines, read_packed_text
from ...files.records import parse_json
from ..base import Dataset, Document, check_locations, undivided
from ..fingerprint import hash_files
from ..key_hashes import chosen_for_val, split_by_hash


class Text(Dataset):
    """`train`, `val` and `test` are files, lists of files, or patterns such as `essays/**/*.txt`.

    A `.jsonl` file has one JSON object per line, with the text of a document under the key `field`; any other file is
    one document. Files with the ending `.gz` or `.xz` are decompressed while they are read. Without `val`, a tenth of
    `train` is used for validation. If `train` is a single file that is not JSONL, it is the last tenth of its
    characters; otherwise these documents are selected by the hash of their keys (at least one document). `documents`
    raises DataError if a file of `val` or `test` is also in `train`, or if a split has no text.
    """

    paths = ("train", "val", "test")

    def __init__(
        self, *, train: str | list[str], val: str | list[str] | None = None, test: str | list[str] | None = None,
        field: str = "text",
    ):  # fmt: skip
        check_locations(train=train, val=val, test=test)
        self.train, self.val, self.test, self.field = train, val, test, field
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        paths, has_text = self._paths(split), False
        separate = split != "train" and getattr(self, split) and not self.whole_of
        if separate and (common := sorted(set(paths) & set(self._paths("train")))):
            raise DataError(f"{common[0]} is in train and in {split}; use separate files for training and evaluation")
        for document in self._share(paths, split):
            has_text = has_text or bool(document.text)
            yield document
        if not has_text:
            rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            source = "train" if split == "val" else "it"
            divided = self.val is None and (split == "val" or (split == "train" and _is_jsonl(paths[0])))
            hint = f"; a tenth of {source} is used for validation: set val, or use more text" if divided else ""
            raise DataError(f"{split}: no text in {paths[0]}{rest}{hint}")

    def _share(self, paths: list[Path], split: str) -> Iterator[Document]:
        """Yields the documents of a split. `documents` in the files `paths` are all used if the split has separate
        files; otherwise, without `val`, only the part for train or for val is used."""
        documents = self._read(paths)
        if self.val is not None or split == "test":
            yield from documents
        elif len(paths) > 1 or _is_jsonl(paths[0]):
            only = chosen_for_val(self._keys(paths))
            for document in documents:
                if ("val" if document.key == only else split_by_hash(document.key)) == split:
                    yield document
        else:
            complete = next(documents)
            cut = int(0.9 * len(complete.text))
            yield Document(complete.key, complete.text[:cut] if split == "train" else complete.text[cut:])

    def whole(self) -> Text:
        return undivided(self, self.train)

    def source_hash(self, split: str) -> str:
        self.check_split(split)
        return hash_files(self._paths(split))

    def about(self) -> dict[str, object]:
        paths = {split: self._paths(split) for split in self.splits}
        sizes = {split: sum(path.stat().st_size for path in files) for split, files in paths.items()}
        return {"files": {split: len(files) for split, files in paths.items()}, "bytes": sizes}

    def _paths(self, split: str) -> list[Path]:
        """Returns the paths of the files of a split, without duplicates. Raises DataError if a path or pattern matches
        no file."""
        patterns = getattr(self, split) or self.train
        unique: dict[Path, None] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            expanded = os.path.expanduser(pattern)
            paths = [expanded] if os.path.isfile(expanded) else matching(expanded)
            files = [Path(path) for path in paths if os.path.isfile(path)]
            if not files:
                hint = f"; for a folder write {pattern.rstrip('/')}/**/*.txt" if os.path.isdir(expanded) else ""
                raise DataError(f"{split}: no file at {pattern!r} (relative to the folder {os.getcwd()}){hint}")
            unique |= dict.fromkeys(files)
        return list(unique)

    def _read(self, paths: list[Path]) -> Iterator[Document]:
        """Yields all documents of these files. The key of a document is the path of its file relative to the common
        folder of all files, and for JSONL also the line number: `a/b.txt`, `a/c.jsonl:7`."""
        for path, key in _named(paths):
            if _is_jsonl(path):
                yield from self._json_lines(path, key)
            else:
                yield Document(key, read_packed_text(path))

    def _keys(self, paths: list[Path]) -> Iterator[str]:
        """Yields the keys of all documents of these files, without parsing their texts."""
        for path, key in _named(paths):
            yield from (f"{key}:{number}" for number, _ in _lines(path)) if _is_jsonl(path) else [key]

    def _json_lines(self, path: Path, key: str) -> Iterator[Document]:
        for number, line in _lines(path):
            where = f"{path}, line {number}"
            row = parse_json(as_text(line, str(path), number), where)
            if not isinstance(row, dict) or not isinstance(row.get(self.field), str):
                actual = f"its keys are {sorted(row)}" if isinstance(row, dict) else "it is not an object"
                raise DataError(f"{where}: no text under the field {self.field!r}; {actual}")
            yield Document(f"{key}:{number}", row[self.field])


def _named(paths: list[Path]) -> list[tuple[Path, str]]:
    """Returns a list of (file, path of the file relative to the common folder of all files)."""
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [(path, path.absolute().relative_to(common).as_posix()) for path in paths]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields (line number, line) for the lines of a JSONL file that are not blank; lines are numbered from 1."""
    return ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").removesuffix(".xz").endswith(".jsonl")
