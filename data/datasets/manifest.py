"""User samples in a manifest: a JSONL file with one JSON object per line, or a CSV or TSV file with a header. The
values in the file are data or paths of files."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from ...files.reading import PACKED, DataError, read_lines, text_lines
from ...files.records import parse_json
from ..fingerprint import Fingerprint
from ..sample_dataset import OwnFiles
from ..sample_keys import Keys
from ..samples import BYTES, FILES, ByColumn, Columns, Listed, Samples, picked

TABLES = {".csv": ",", ".tsv": "\t"}
"""The delimiter of the columns, by the ending of the file."""
KEY = "key"
"""The default column of the keys."""


class Manifest(OwnFiles):
    """`train`, `val` and `test` are JSONL, CSV or TSV files. Without `val`, a tenth of train is used for validation,
    selected by the hash of its key. The key of a sample, which names it in predictions and messages, is its value in
    the column `key`, by default `key`; without such a column, the number of its line. `columns` are the names of the
    columns that are read. `files` are the columns that contain paths, or lists of paths, relative to the folder of the
    manifest. An empty field of a CSV or TSV file is a missing value.

    Example of a line of JSONL with `columns: [image, label]` and `files: [image]`:

        {"key": "7", "image": "images/7.png", "label": "cat"}

    Raises ValueError if `files` contains a name that is not in `columns`.
    """

    def __init__(
        self, *, train: str, val: str | None = None, test: str | None = None, columns: list[str],
        files: list[str] | None = None, key: str = KEY,
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.columns, self.files, self.key = tuple(columns), files, key
        if unknown := [name for name in files or () if name not in columns]:
            raise ValueError(f"files: {unknown[0]!r} is not among the columns ({', '.join(columns)})")

    def read(self, where: str | Path) -> Samples:
        """Returns all samples of a manifest, which is read once to find its rows. Raises DataError if a line is invalid
        (see `numbered_rows`), if there are no samples, if two samples have the same key, or if a sample has no value in
        a column `key` that is not the default."""
        path = Path(os.path.expanduser(where))
        starts, lines, hashes, keyed, ending = array("q"), array("q"), array("q"), False, path.suffix.lower()
        for start, number, row in located_rows(path):
            starts.append(start)
            lines.append(number)
            keyed = keyed or self.key in row
            hashes.append(hash(self.key_of(path, number, row)))
        if not starts:
            raise DataError(f"{path} holds no samples")
        stat = path.stat()
        if len(np.unique(hashes)) < len(hashes):
            counts = Counter(self.key_of(path, number, row) for number, row in numbered_rows(path))
            if (key := counts.most_common(1)[0])[1] > 1:
                raise DataError(f"{path}: the key {key[0]!r} occurs twice")
        header = (
            next(csv.reader(text_lines(read_lines(path), ""), delimiter=TABLES[ending])) if ending in TABLES else ()
        )
        samples = Rows(path, self.columns, tuple(self.files or ()), np.array(starts), np.array(lines),
                       self.key if keyed else None, tuple(header), (stat.st_size, stat.st_mtime_ns))  # fmt: skip
        if ending in PACKED:  # a compressed file cannot be read from the middle
            rows = [(number, samples.cells(row)) for number, row in numbered_rows(path)]
            keys = [self.key_of(path, number, row) for number, row in numbered_rows(path)]
            return Listed(keys, [row for _, row in rows])
        return samples

    def key_of(self, path: Path, number: int, row: Mapping[str, Any]) -> str:
        """Returns the key of the row that ends in line `number`."""
        if self.key != KEY and row.get(self.key) is None:
            raise DataError(f"{path}, line {number} has no value in column {self.key!r}, the key of the samples")
        return str(row.get(self.key, f"line {number}"))

    def others(self) -> list[str]:
        _, row = next(numbered_rows(Path(os.path.expanduser(self.train))), (0, {}))
        return [name for name in row if name not in (*self.columns, self.key)]


@dataclass(frozen=True, eq=False)
class Rows(ByColumn):
    """The rows of a manifest, each of which is read from the file when it is needed; only their positions are in
    memory. `starts` are the positions of the rows in the file, in bytes, and `lines` the numbers of their last lines.
    `files` are the columns of paths."""

    path: Path
    columns: tuple[str, ...]
    files: tuple[str, ...]
    starts: np.ndarray
    lines: np.ndarray
    key: str | None
    """The column of the keys; None: the numbers of the lines are the keys."""
    header: tuple[str, ...]
    """The columns of a CSV or TSV file; empty for JSONL."""
    version: tuple[int, int]
    """The size and the modification time of the file."""

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def keys(self) -> Sequence[str]:
        return RowKeys(self)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        return picked(self.cells(self.complete(number)), names)

    def complete(self, number: int) -> dict[str, Any]:
        """Returns all columns of a row, as they are in the file. Raises DataError if the file has changed."""
        start = int(self.starts[number])
        with open(self.path, "rb") as file:
            stat = os.fstat(file.fileno())
            if (stat.st_size, stat.st_mtime_ns) != self.version:
                raise DataError(f"{self.path} changed after its rows were counted; start again")
            file.seek(start)
            content = file.read(int(self.starts[number + 1]) - start if number + 1 < len(self.starts) else -1)
        where = f"{self.path}, line {self.lines[number]}"
        if self.path.suffix.lower() not in TABLES:
            return parse_json(content.strip(), where)
        reader = csv.reader(text_lines(io.BytesIO(content), where), delimiter=TABLES[self.path.suffix.lower()])
        return {name: value or None for name, value in zip(self.header, next(reader), strict=True)}

    def cells(self, row: Mapping[str, Any]) -> Columns:
        """Returns the columns that are read. Paths are joined to the folder of the manifest, also in lists."""
        return {name: self._cell(name, row.get(name)) for name in self.columns}

    def _cell(self, name: str, value: Any) -> Any:
        if name not in self.files:
            return value
        if isinstance(value, list):
            return [self._cell(name, element) for element in value]
        return self.path.parent / value if isinstance(value, str) else value

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        """Returns a hash of the manifest and of the files that it names: of their contents if these are few (see
        `Listed.fingerprint`), otherwise of their sizes and times."""
        paths = (
            (value for row in self for value in row.values() if isinstance(value, os.PathLike)) if self.files else ()
        )
        first = list(islice(paths, FILES + 1))
        few = len(first) <= FILES and sum(os.path.getsize(path) for path in first if os.path.exists(path)) <= BYTES
        fingerprint = Fingerprint("Rows", self.path, list(self.columns), list(self.files), contents=few)
        for path in chain(first, paths):
            fingerprint.add(path)
        return fingerprint.hex


@dataclass(frozen=True, eq=False)
class RowKeys(Keys):
    """The keys of the rows of a manifest: the values in the column `key`; without such a column, `line 7`."""

    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> str:
        number = range(len(self.rows))[number]
        line = f"line {self.rows.lines[number]}"
        return str(self.rows.complete(number).get(self.rows.key, line)) if self.rows.key else line


def located_rows(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yields (position in bytes, line number, row) of a manifest; see `numbered_rows`."""
    position = 0

    def counted() -> Iterator[bytes]:
        nonlocal position
        for line in read_lines(path):
            position += len(line)
            yield line

    start = 0
    for number, row in rows_in(path, counted()):
        if row is not None:
            yield start, number, row
        start = position


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, row) of a manifest. Lines are numbered from 1, rows map columns to values, and blank lines
    are skipped. Raises DataError if a line is not a JSON object, or in a CSV or TSV file, if `table_lines` does."""
    return ((number, row) for number, row in rows_in(path, read_lines(path)) if row is not None)


def rows_in(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yields (line number, row) of the lines of a manifest; None for a blank line and for the header of a table."""
    if path.suffix.lower() in TABLES:
        yield from table_lines(path, lines)
        return
    for number, line in enumerate(lines, start=1):
        row = parse_json(line, f"{path}, line {number}") if line.strip() else None
        if row is not None and not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: expected a mapping, not {type(row).__name__}")
        yield number, row


def table_lines(path: Path, lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yields (number of the row's last line, row) of the lines of a CSV or TSV file. Rows map the columns in the header
    to texts, or to None for an empty field. Raises DataError if the header is missing or has a name twice, if a row has
    more or fewer fields than the header, or if the file is not valid CSV."""
    reader = csv.reader(text_lines(lines, str(path)), delimiter=TABLES[path.suffix.lower()])
    try:
        header = next(reader, [])
        if not header or len(set(header)) != len(header):
            raise DataError(f"{path}: its first line must name every column, each once")
        yield reader.line_num, None
        for row in reader:
            if len(row) != len(header) and row:
                raise DataError(f"{path}, line {reader.line_num} has {len(row)} fields, the header {len(header)}")
            yield reader.line_num, {name: value or None for name, value in zip(header, row)} if row else None
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
