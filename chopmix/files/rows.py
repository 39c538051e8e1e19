"""Tables of rows in files: CSV, JSON lines and parquet. Rows are written one group after another, so a table may be
larger than the memory.

A row maps columns to values. In a CSV or parquet file, a mapping inside a row becomes one column per key:

    {"key": "a.png", "kind": {"class": "cat", "probabilities": {"cat": 0.9, "dog": 0.1}}}

    key,kind.class,kind.probabilities.cat,kind.probabilities.dog,error
    a.png,cat,0.9,0.1,
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .reading import DataError
from .writing import atomic_file

ENDINGS = (".csv", ".jsonl", ".parquet")
FIRST = 1024
"""The number of rows that determine the columns of a CSV or parquet file."""

UTF8 = {"encoding": "utf-8", "errors": "backslashreplace"}
"""The encoding of text files. A name of a file that is not UTF-8 is written with escapes."""

Row = Mapping[str, Any]
Write = Callable[[Sequence[Row]], None]


def ending_of(path: Path, endings: Sequence[str] = ENDINGS) -> str:
    """Returns the ending of a file name in lower case. Raises DataError if it is none of `endings`."""
    ending = path.suffix.lower()
    if ending not in endings:
        raise DataError(f"{path}: possible endings: {', '.join(endings)}")
    return ending


def flat_row(row: Row, vectors: Collection[str] = (), prefix: str = "") -> dict[str, Any]:
    """Returns a row without mappings: `{"a": {"b": 1}}` becomes `{"a.b": 1}`. A mapping that contains only `error`
    becomes a part of the column `error`: `{"text": {"error": "it is missing"}}` becomes `{"error": "text: it is
    missing"}`. `vectors` are the columns whose lists become one column per number: `{"a.b": [7, 8]}` becomes `{"a.b.0":
    7, "a.b.1": 8}`. The list in the column `without` becomes a text: `["image", "sound"]` becomes `"image, sound"`."""
    values: dict[str, Any] = {}
    for name, value in row.items():
        column = prefix + name
        if column == "without" and isinstance(value, list):
            values[column] = ", ".join(value)
        elif column in vectors and isinstance(value, list):
            values |= {f"{column}.{number}": each for number, each in enumerate(value)}
        elif not isinstance(value, dict):
            values[column] = value
        elif [*value] == ["error"]:
            values["error"] = "; ".join(filter(None, [values.get("error"), f"{column}: {value['error']}"]))
        else:
            values |= flat_row(value, vectors, f"{column}.")
    return values


@contextmanager
def row_file(path: Path, vectors: Collection[str] = (), errors: bool = True) -> Iterator[Write]:
    """Returns a context with a function that writes a list of rows. The file appears under its name when the context
    ends without an exception. A CSV or parquet file has the columns of its first FIRST rows, and with `errors` the
    columns `without` and `error`. For `vectors` see `flat_row`. Raises DataError if `path` has none of the ENDINGS,
    if parquet is not available, if a later row has a further column, or, for parquet, a value of another type; and
    OSError if the file cannot be written."""
    ending = ending_of(path)
    with atomic_file(path, "wb") if ending == ".parquet" else atomic_file(path, newline="", **UTF8) as file:
        if ending == ".jsonl":
            yield lambda rows: file.writelines(f"{line_of(row)}\n" for row in rows)
            return
        table = (ParquetTable if ending == ".parquet" else CsvTable)(path, file, vectors, errors)
        try:
            yield table.write
            table.close()
        except BaseException:
            table.abandon()
            raise


SURROGATE = re.compile(r"[\ud800-\udfff]")
SEPARATOR = re.compile(r"[\x7f-\x9f\u2028\u2029]")
"""Characters that some programs take for the end of a line, and other control characters that JSON does not escape."""


def line_of(row: Row) -> str:
    """Returns a row as one line of JSON. A character that UTF-8 cannot represent becomes its escape as text."""
    text = SEPARATOR.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(row, ensure_ascii=False))
    return SURROGATE.sub(lambda match: "\\" + ascii(match[0])[1:-1], text)


class CsvTable:
    """Writes rows to an open CSV file. Lists are written as JSON."""

    def __init__(self, path: Path, file: Any, vectors: Collection[str], errors: bool):
        self.path, self.file, self.vectors = path, file, vectors
        self.ends = ["without", "error"] if errors else []
        self.first: list[dict[str, Any]] | None = []
        self.columns: list[str] = []

    def write(self, rows: Sequence[Row]) -> None:
        """Writes rows. The first FIRST rows are kept until their number is reached, or until `close`."""
        flat_rows = [flat_row(row, self.vectors) for row in rows]
        if self.first is not None:
            self.first += flat_rows
            if len(self.first) < FIRST:
                return
            self.begin()
            return
        known = {*self.columns}
        for row in flat_rows:
            if not row.keys() <= known:
                name = next(name for name in row if name not in known)
                raise DataError(f"{self.path}: the column {name!r} first occurs after {FIRST:,} rows; write .jsonl")
        self.put(flat_rows)

    def close(self) -> None:
        """Writes the rows that are still kept."""
        if self.first is not None:
            self.begin()

    def abandon(self) -> None:
        """Ends the writing after an error, before the file is deleted."""

    def begin(self) -> None:
        rows, self.first = self.first or [], None
        self.columns = [*dict.fromkeys(name for row in rows for name in row if name not in self.ends), *self.ends]
        self.head(rows)
        self.put(rows)

    def head(self, rows: Sequence[Row]) -> None:
        self.table = csv.writer(self.file)
        self.table.writerow(self.columns)

    def put(self, rows: Iterable[Row]) -> None:
        self.table.writerows([cell(row.get(name)) for name in self.columns] for row in rows)


def cell(value: Any) -> Any:
    """Returns a value as it is written into a CSV file: a list or a boolean as JSON, other values unchanged."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | bool) else value


def as_utf8(value: Any) -> Any:
    """Returns a text with escapes for characters that UTF-8 cannot represent, and other values unchanged."""
    return value.encode(**UTF8).decode() if isinstance(value, str) else value


class ParquetTable(CsvTable):
    """Writes rows to an open parquet file. Lists stay lists. A column without values is a column of texts."""

    def __init__(self, path: Path, file: Any, vectors: Collection[str], errors: bool):
        super().__init__(path, file, (), errors)
        self.arrow, self.parquet = arrow(path)

    def head(self, rows: Sequence[Row]) -> None:
        schema = self.arrow.Table.from_pylist(
            [{name: as_utf8(row.get(name)) for name in self.columns} for row in rows]
        ).schema
        fields = [
            field.with_type(self.arrow.string()) if field.type == self.arrow.null() else field for field in schema
        ]
        self.schema = self.arrow.schema(fields or [(name, self.arrow.string()) for name in self.columns])
        self.table = self.parquet.ParquetWriter(self.file, self.schema)

    def put(self, rows: Iterable[Row]) -> None:
        rows = [{name: as_utf8(value) for name, value in row.items()} for row in rows]
        try:
            group = self.arrow.Table.from_pylist(rows, schema=self.schema)
        except (self.arrow.ArrowInvalid, self.arrow.ArrowTypeError, OverflowError) as error:
            raise DataError(
                f"{self.path}: a value has another type than in the first {FIRST:,} rows ({error}); write .jsonl"
            ) from None
        if rows:
            self.table.write_table(group)

    def close(self) -> None:
        super().close()
        self.table.close()

    def abandon(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self.table.close()


def arrow(path: Path) -> tuple[Any, Any]:
    """Returns the modules `pyarrow` and `pyarrow.parquet`. Raises DataError if pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: parquet files need pyarrow: pip install pyarrow; or write .csv or .jsonl") from None
    return pyarrow, parquet


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of a file that `row_file` has written, without a column for missing values. The values of a CSV
    file are texts. Raises DataError if the file is missing or damaged."""
    from .records import parse_json

    ending = ending_of(path)
    try:
        if ending == ".parquet":
            _, parquet = arrow(path)
            with parquet.ParquetFile(path) as file:
                for group in file.iter_batches(FIRST):
                    yield from group.to_pylist()
            return
        with open(path, encoding="utf-8", newline="") as lines:
            if ending == ".csv":
                yield from csv.DictReader(lines)
                return
            for number, line in enumerate(lines, start=1):
                yield parse_json(line, f"{path}, line {number}")
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
