"""Your own samples in a manifest: a JSONL file with one JSON object a line, or a CSV file with a header, whose values
are data, or paths of files."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...files.reading import DataError, read_lines, text_lines
from ...files.records import parse_json
from ..samples import Listed, OwnFiles, Samples

TABLES = {".csv": ",", ".tsv": "\t"}
"""What separates the columns of a table, by the ending of its file."""


class Manifest(OwnFiles):
    """`train`, `val` and `test` each name a JSONL, CSV or TSV file; without `val` a tenth of train validates, by hash
    of the line's `key` (its number where it has none). `columns` are the keys that are read, `files` those of them that
    hold paths (or lists of them), relative to the manifest's folder. An empty field of a table is a missing value.

    With `columns: [image, label]` and `files: [image]` a line of JSONL may be

        {"key": "7", "image": "images/7.png", "label": "cat"}

    Raises ValueError where `files` names no column."""

    def __init__(
        self, *, train: str, val: str | None = None, test: str | None = None, columns: list[str],
        files: list[str] | None = None,
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.columns, self.files = tuple(columns), files
        if wrong := [name for name in files or () if name not in columns]:
            raise ValueError(f"files: {wrong[0]!r} is not among the columns ({', '.join(columns)})")

    def read(self, where: str | Path) -> Samples:
        """All samples of one file. Raises DataError naming it and the line that is wrong, and where it has no samples
        or two with one key."""
        path, keys, rows = Path(os.path.expanduser(where)), [], []
        for number, row in rows_of(path):
            keys.append(str(row.get("key", f"line {number}")))
            rows.append({name: self._value(path, name, row.get(name)) for name in self.columns})
        if not rows:
            raise DataError(f"{path} holds no samples")
        if len(set(keys)) != len(keys):
            seen: set[str] = set()
            twice = next(key for key in keys if key in seen or seen.add(key))
            raise DataError(f"{path}: the key {twice!r} stands twice")
        return Listed(keys, rows)

    def others(self) -> list[str]:
        _, row = next(rows_of(Path(os.path.expanduser(self.train))))
        return [name for name in row if name not in (*self.columns, "key")]

    def _value(self, path: Path, name: str, value: Any) -> Any:
        """A value; a path, or a list of paths, of `files` joined to the manifest's folder."""
        if name not in (self.files or ()):
            return value
        if isinstance(value, list):
            return [self._value(path, name, each) for each in value]
        return path.parent / value if isinstance(value, str) else value


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a manifest as mappings, each with the number of its line, from 1. Raises DataError for what is no
    such row."""
    if path.suffix.lower() in TABLES:
        yield from table_rows(path)
        return
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: a mapping is expected, not {type(row).__name__}")
        yield number, row


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV or TSV file with a header, all values as text, None for an empty one; each with the number of
    its last line. Raises DataError for a wrong header or row."""
    reader = csv.reader(text_lines(read_lines(path), str(path)), delimiter=TABLES[path.suffix.lower()])
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header):
            raise DataError(f"{path}: its first line must name every column, each once")
        for row in reader:
            if len(row) != len(header) and row:
                raise DataError(f"{path}, line {reader.line_num} has {len(row)} fields, the header {len(header)}")
            if row:
                yield reader.line_num, {name: value or None for name, value in zip(header, row)}
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
