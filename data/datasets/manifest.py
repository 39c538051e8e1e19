"""User samples in a manifest: a JSONL file with one JSON object per line, or a CSV or TSV file with a header. The
values in the file are data or paths of files."""

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
"""The delimiter of the columns, by the ending of the file."""


class Manifest(OwnFiles):
    """`train`, `val` and `test` are JSONL, CSV or TSV files. Without `val`, a tenth of train is used for validation,
    selected by the hash of the value under `key` in each line, or of the line number if there is none. `columns` are
    the names of the columns that are read. `files` are the columns that contain paths, or lists of paths, relative to
    the folder of the manifest. An empty field of a CSV or TSV file is a missing value.

    Example of a line of JSONL with `columns: [image, label]` and `files: [image]`:

        {"key": "7", "image": "images/7.png", "label": "cat"}

    Raises ValueError if `files` contains a name that is not in `columns`.
    """

    def __init__(
        self, *, train: str, val: str | None = None, test: str | None = None, columns: list[str],
        files: list[str] | None = None,
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.columns, self.files = tuple(columns), files
        if unknown := [name for name in files or () if name not in columns]:
            raise ValueError(f"files: {unknown[0]!r} is not among the columns ({', '.join(columns)})")

    def read(self, where: str | Path) -> Samples:
        """Returns all samples of a manifest. Raises DataError if a line is invalid (see `rows_of`), if there are no
        samples, or if two samples have the same key."""
        path, keys, rows = Path(os.path.expanduser(where)), [], []
        for number, row in rows_of(path):
            keys.append(str(row.get("key", f"line {number}")))
            rows.append({name: self._value(path, name, row.get(name)) for name in self.columns})
        if not rows:
            raise DataError(f"{path} holds no samples")
        if len(set(keys)) != len(keys):
            previous: set[str] = set()
            duplicate = next(key for key in keys if key in previous or previous.add(key))
            raise DataError(f"{path}: the key {duplicate!r} occurs twice")
        return Listed(keys, rows)

    def others(self) -> list[str]:
        _, row = next(rows_of(Path(os.path.expanduser(self.train))))
        return [name for name in row if name not in (*self.columns, "key")]

    def _value(self, path: Path, name: str, value: Any) -> Any:
        """Returns a value of the column `name`. In the columns `files`, paths are joined to the folder of the manifest,
        also in lists; values of any other type are unchanged."""
        if name not in (self.files or ()):
            return value
        if isinstance(value, list):
            return [self._value(path, name, element) for element in value]
        return path.parent / value if isinstance(value, str) else value


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, row) of a manifest. Lines are numbered from 1, rows map columns to values, and blank lines
    are skipped. Raises DataError if a line is not a JSON object, or in a CSV or TSV file, if `table_rows` does."""
    if path.suffix.lower() in TABLES:
        yield from table_rows(path)
        return
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path}, line {number}")
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a mapping, not {type(row).__name__}")
        yield number, row


def table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (number of the row's last line, row) of a CSV or TSV file. Rows map the columns in the header to texts, or
    to None for an empty field. Raises DataError if the header is missing or has a name twice, if a row has more or
    fewer fields than the header, or if the file is not valid CSV."""
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
