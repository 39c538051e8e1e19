"""Tables of measurements over time as files (CSV, parquet): their columns are read in parts, and stored as arrays."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files.reading import DataError, shown
from .base import cache_folder
from .fingerprint import file_fingerprint
from .prepared import Arrays, Columnwise, prepared
from .tables import check_unpacked_size

DATES = [
    f"{date}{time}" for date in ("%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%d") for time in (" %H:%M:%S", " %H:%M", "")
]  # fmt: skip
"""The formats of dates in addition to ISO 8601."""
LATEST = 1e11
"""The largest number of seconds of a time (the year 5138)."""
FORMAT = 3
"""The number of the format of prepared tables."""


def prepare_table(
    path: Path, time: str, streams: Mapping[str, Sequence[str]], files: Sequence[str], labels: Sequence[str]
) -> Arrays:
    """Returns the prepared columns of a table (`streams`: the channels of each stream); they are written to the cache
    folder if they are not there: `time` (rows), for stream number N `stream-N` (measurements, channels) without the
    rows in which all channels are missing, and for column number N of files and labels `column-N` (values), the index
    of each value in `about["values"]`; each with its times in `...-time`. Raises DataError if the table cannot be read,
    a column is missing, a value is not a number, or the times do not increase."""
    if not os.path.isfile(path):
        raise DataError(f"there is no table {str(path)!r}")
    stat = path.stat()
    described = repr((FORMAT, str(path.absolute()), stat.st_size, stat.st_mtime_ns, time, streams, files, labels))
    folder = cache_folder() / "tables" / hashlib.sha256(described.encode()).hexdigest()[:32]
    try:
        return prepared(folder, lambda written: _prepare(path, written, time, streams, [*files, *labels]))
    except DataError:
        raise
    except (ValueError, TypeError, KeyError, OverflowError) as error:  # of pyarrow, such as for lists in a column
        raise DataError(f"{path} cannot be read: {error}") from None


def _prepare(
    path: Path, written: Columnwise, time: str, streams: Mapping[str, Sequence[str]], texts: Sequence[str]
) -> None:
    values: dict[str, dict[str, int]] = {name: {} for name in texts}
    rows, previous, dates = 0, -np.inf, False
    for batch in parts_of(path, time, streams, texts):
        seconds, dates = times_of(batch.column(time), time, path, rows)
        steps = np.diff(seconds, prepend=previous)
        if len(steps) and not (steps > 0).all():
            at = int(np.flatnonzero(~(steps > 0))[0])
            before = seconds[at - 1] if at else previous
            raise DataError(
                f"{path}, row {rows + at + 1:,}: the time {moment(seconds[at], dates)} is not after that of "
                f"the row before it, {moment(before, dates)}; sort the table by {time!r}, one row per time"
            )
        written.add("time", seconds)
        for number, columns in enumerate(streams.values()):
            numbers = np.stack([numbers_of(batch.column(c), c, path, rows) for c in columns], axis=1)
            present = ~np.isnan(numbers).all(axis=1)
            written.add(f"stream-{number}", numbers[present])
            written.add(f"stream-{number}-time", seconds[present])
        for index, name in enumerate(texts):
            cells = batch.column(name).to_pylist()
            known = [number for number, cell in enumerate(cells) if cell not in (None, "")]
            codes = values[name]
            written.add(f"column-{index}", np.array([codes.setdefault(cells[n], len(codes)) for n in known], np.int32))
            written.add(f"column-{index}-time", seconds[known])
        rows += len(seconds)
        previous = seconds[-1] if len(seconds) else previous
    if not rows:
        raise DataError(f"{path} has no rows")
    written.about = {
        "dates": dates, "source": file_fingerprint(path),
        "values": {name: typed(list(codes)) for name, codes in values.items()},
    }  # fmt: skip


def column_names(path: Path) -> list[str]:
    """Returns the names of the columns of a table. Raises DataError if it cannot be read."""
    csv, parquet = arrow_readers()
    try:
        if path.suffix.lower() == ".parquet":
            names = list(parquet.read_schema(path).names)
        else:
            with csv.open_csv(path) as reader:
                names = list(reader.schema.names)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if len(names) == 1 and ";" in names[0]:
        raise DataError(f"{path}: its columns must be separated by commas, not by semicolons")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} has the column {twice[0]!r} twice; rename one of them")
    return names


CONVERSION = re.compile(r"CSV column #(\d+): Row #(\d+): CSV conversion error to double: invalid value '(.*)'")
"""The message of pyarrow for a cell that is not a number."""


def parts_of(path: Path, time: str, streams: Mapping[str, Sequence[str]], texts: Sequence[str]) -> Iterator[Any]:
    """Yields record batches with the needed columns of a table. Raises DataError if the table cannot be read or lacks a
    column."""
    csv, parquet = arrow_readers()
    names, columns = column_names(path), dict.fromkeys([time, *(c for s in streams.values() for c in s), *texts])
    if missing := [name for name in columns if name not in names]:
        raise DataError(f"{path} has no column {missing[0]!r}; possible: {', '.join(names)}")
    try:
        if path.suffix.lower() == ".parquet":
            check_unpacked_size(path)
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(columns=list(columns))
            return
        import pyarrow as arrow

        types = dict.fromkeys(texts, arrow.string()) | {c: arrow.float64() for s in streams.values() for c in s}
        options = csv.ConvertOptions(
            include_columns=list(columns), column_types=types, strings_can_be_null=True,
            timestamp_parsers=[csv.ISO8601, *DATES],
            null_values=["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"],
        )  # fmt: skip
        with csv.open_csv(path, convert_options=options) as reader:
            yield from reader
    except (OSError, ValueError) as error:
        if wrong := CONVERSION.search(str(error)):
            column, row, value = names[int(wrong[1])], int(wrong[2]), wrong[3]
            raise DataError(f"{path}, line {row:,}: column {column!r} must have numbers, not {shown(value)}") from None
        raise DataError(f"{path} cannot be read: {error}") from None


def arrow_readers() -> tuple[Any, Any]:
    """Returns the modules (csv, parquet) of pyarrow. Raises DataError if it is not installed."""
    try:
        from pyarrow import csv, parquet
    except ImportError:
        raise DataError("the data set table needs the library pyarrow: pip install 'chopmix[table]'") from None
    return csv, parquet


def times_of(column: Any, name: str, path: Path, rows: int) -> tuple[np.ndarray, bool]:
    """Returns (times in seconds, whether they are dates). Dates become seconds since 1970. Raises DataError if a time
    is missing, or is neither a number nor a date."""
    import pyarrow as arrow

    if column.null_count:
        at = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {rows + at + 1:,}: there is no time in column {name!r}")
    if arrow.types.is_timestamp(column.type) or arrow.types.is_date(column.type):
        dates = column.cast(arrow.timestamp("us"), safe=False).cast(arrow.int64())
        seconds = dates.to_numpy(zero_copy_only=False) / 1e6
        if not (np.abs(seconds) <= LATEST).all():
            raise DataError(f"{path}: the dates in column {name!r} must be before the year 5138")
        return seconds, True
    if arrow.types.is_integer(column.type) or arrow.types.is_floating(column.type):
        seconds = column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        if not (np.abs(seconds) <= LATEST).all():
            raise DataError(
                f"{path}: the times in column {name!r} must be seconds, from {-LATEST:g} to {LATEST:g}; milliseconds "
                "and nanoseconds must be converted"
            )
        return seconds, False
    values = column.to_pylist()
    at = next((number for number, value in enumerate(values) if not is_time(value)), 0)
    raise DataError(
        f"{path}, row {rows + at + 1:,}: the times in column {name!r} must be numbers of seconds, or dates such as "
        f"2026-11-30 08:00:00, not {shown(values[at])}"
    )


def is_time(value: Any) -> bool:
    """Returns whether a cell is a number or a date in ISO 8601 or one of DATES."""
    for read in (float, datetime.fromisoformat, *(partial(datetime.strptime, format=form) for form in DATES)):
        with suppress(ValueError, TypeError):
            read(value)
            return True
    return False


def numbers_of(column: Any, name: str, path: Path, rows: int) -> np.ndarray:
    """Returns the values of a channel as float32; a missing or infinite value is NaN. Raises DataError if they are not
    numbers."""
    import pyarrow as arrow

    kinds = arrow.types
    if not any(
        is_kind(column.type) for is_kind in (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_null)
    ):
        raise DataError(f"{path}: the channel {name!r} must have numbers, not {shown(column[0].as_py())}")
    if kinds.is_boolean(column.type):
        column = column.cast(arrow.int8())
    numbers = column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float32)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def typed(values: list[Any]) -> list[Any]:
    """Returns texts as whole numbers if all of them are, else as numbers if all of them are, else unchanged. Values
    that are neither texts nor numbers become texts."""
    if not all(isinstance(value, str) for value in values):
        return [value if isinstance(value, str | int | float) else str(value) for value in values]
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            if len({kind(value) for value in values}) == len(values):
                return [kind(value) for value in values]
    return values


def moment(seconds: float, dates: bool) -> str:
    """Returns a time as text: `12.5 s`, or `2026-11-30T08:00:12.500` for a date."""
    if not dates:
        return f"{seconds:.10g} s"
    return datetime.fromtimestamp(float(seconds), UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
