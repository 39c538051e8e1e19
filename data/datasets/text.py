"""A text corpus of your own: plain text files, one document each, or JSONL files, one document a line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ...files.reading import DataError, as_text, matching, read_lines, read_packed_text
from ...files.records import parse_json
from ..base import Dataset, Document, chosen_for_val, split_by_hash, undivided
from ..fingerprint import hash_files


class Text(Dataset):
    """`train`, `val` and `test` each name a file, several, or patterns such as `essays/**/*.txt`.

    Files end in `.jsonl` (one JSON object a line, its text under `field`) or in anything else (one document each), and
    may be packed as `.gz` or `.xz`. Without `val`, a tenth of `train` validates: by the hash of the key (one
    document at least), or the last tenth of the characters where `train` is a single text file. `documents` raises
    DataError where a file of `val` or `test` is in `train`, too, or a split has no text.
    """

    def __init__(
        self, *, train: str | list[str], val: str | list[str] | None = None, test: str | list[str] | None = None,
        field: str = "text",
    ):  # fmt: skip
        self.train, self.val, self.test, self.field = train, val, test, field
        self.splits = ("train", "val") if test is None else ("train", "val", "test")

    def documents(self, split: str) -> Iterator[Document]:
        self.check_split(split)
        paths, some = self._paths(split), False
        shared = split != "train" and getattr(self, split) and not self.whole_of
        if shared and (both := sorted(set(paths) & set(self._paths("train")))):
            raise DataError(f"{both[0]} is in train and in {split}; what is learned by heart proves nothing")
        for document in self._share(paths, split):
            some = some or bool(document.text)
            yield document
        if not some:
            rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            whose = "train" if split == "val" else "it"
            shared = not self.val and (split == "val" or (split == "train" and _is_jsonl(paths[0])))
            hint = f"; a tenth of {whose} validates: name a val of your own, or give more text" if shared else ""
            raise DataError(f"{split}: no text in {paths[0]}{rest}{hint}")

    def _share(self, paths: list[Path], split: str) -> Iterator[Document]:
        """The documents of the files that belong to the split: all of them, or, where train and val share files, a
        part."""
        found = self._read(paths)
        if self.val is not None or split == "test":
            yield from found
        elif len(paths) > 1 or _is_jsonl(paths[0]):
            alone = chosen_for_val(self._keys(paths))
            for document in found:
                if ("val" if document.key == alone else split_by_hash(document.key)) == split:
                    yield document
        else:
            whole = next(found)
            cut = int(0.9 * len(whole.text))
            yield Document(whole.key, whole.text[:cut] if split == "train" else whole.text[cut:])

    def whole(self) -> Text:
        return undivided(self, self.train)

    def source_hash(self, split: str) -> str:
        self.check_split(split)
        return hash_files(self._paths(split))

    def about(self) -> dict[str, object]:
        paths = {split: self._paths(split) for split in self.splits}
        sizes = {split: sum(path.stat().st_size for path in found) for split, found in paths.items()}
        return {"files": {split: len(found) for split, found in paths.items()}, "bytes": sizes}

    def _paths(self, split: str) -> list[Path]:
        """The files that a split is read from. Raises DataError for a name or a pattern without any file."""
        patterns = getattr(self, split) or self.train
        found: dict[Path, None] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            here = os.path.expanduser(pattern)
            paths = [here] if os.path.isfile(here) else matching(here)
            files = [Path(path) for path in paths if os.path.isfile(path)]
            if not files:
                hint = f"; for a folder write {pattern.rstrip('/')}/**/*.txt" if os.path.isdir(here) else ""
                raise DataError(f"{split}: no file at {pattern!r} (from the folder {os.getcwd()}){hint}")
            found |= dict.fromkeys(files)
        return list(found)

    def _read(self, paths: list[Path]) -> Iterator[Document]:
        """All documents of some files. A key is the file's path below the folder that all share, in JSONL with the
        line: `a/b.txt`, `a/c.jsonl:7`."""
        for path, key in _named(paths):
            if _is_jsonl(path):
                yield from self._json_lines(path, key)
            else:
                yield Document(key, read_packed_text(path))

    def _keys(self, paths: list[Path]) -> Iterator[str]:
        """The keys of the documents of some files, without parsing their texts."""
        for path, key in _named(paths):
            yield from (f"{key}:{number}" for number, _ in _lines(path)) if _is_jsonl(path) else [key]

    def _json_lines(self, path: Path, key: str) -> Iterator[Document]:
        for number, line in _lines(path):
            where = f"{path}, line {number}"
            found = parse_json(as_text(line, str(path), number), where)
            if not isinstance(found, dict) or not isinstance(found.get(self.field), str):
                given = f"its keys are {sorted(found)}" if isinstance(found, dict) else "it is no object"
                raise DataError(f"{where}: no text under the field {self.field!r}; {given}")
            yield Document(f"{key}:{number}", found[self.field])


def _named(paths: list[Path]) -> list[tuple[Path, str]]:
    """Files, each with its path below the folder that all share."""
    shared = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [(path, path.absolute().relative_to(shared).as_posix()) for path in paths]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a JSONL file that are not blank, each with its number, from 1."""
    return ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _is_jsonl(path: Path) -> bool:
    return path.name.removesuffix(".gz").removesuffix(".xz").endswith(".jsonl")
