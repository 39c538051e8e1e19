"""Tables of measurements over time as files (CSV, parquet): their columns are read in parts, and stored as arrays."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from jaxtyping import Float, Int

from ..files.reading import DataError, shown
from ..files.records import as_text
from .base import cache_folder
from .fingerprint import file_fingerprint
from .hub_files import check_unpacked_size
from .prepared import Arrays, Columnwise, prepared

DATES = [
    f"{date}{time}" for date in ("%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%d") for time in (" %H:%M:%S", " %H:%M", "")
]  # fmt: skip
"""The formats of dates in addition to ISO 8601."""
LATEST = 1e11
"""The largest number of seconds of a time (the year 5138)."""
FORMAT = 5
"""The number of the format of prepared tables."""


def prepare_table(
    path: Path, time: str, streams: Mapping[str, Sequence[str]], files: Sequence[str], labels: Sequence[str]
) -> Arrays:
    """Returns the prepared columns of a table (`streams`: the channels of each stream); they are written to the cache
    folder if they are not there: `time` (rows), if the times have a zone `offset` (rows, seconds from UTC), for stream
    number N `stream-N` (measurements, channels) without the rows in which all channels are missing, and for column
    number N of files and labels `column-N` (values), the index of each value in `about["values"]`; each with its times
    in `...-time`. Raises DataError if the table cannot be read, a column is missing, a value is not a number, or the
    times do not increase."""
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
    rows, previous, kind = 0, -np.inf, Times(np.empty(0))
    for batch in parts_of(path, time, streams, texts):
        kind = times_of(batch.column(time), time, path, rows, kind if rows else None)
        seconds = kind.seconds
        check_increasing(kind, time, path, rows, previous)
        written.add("time", seconds)
        if kind.offsets is not None:
            written.add("offset", kind.offsets)
        for number, columns in enumerate(streams.values()):
            numbers = np.stack([numbers_of(batch.column(c), c, path, rows) for c in columns], axis=1)
            present = ~np.isnan(numbers).all(axis=1)
            written.add(f"stream-{number}", numbers[present])
            written.add(f"stream-{number}-time", seconds[present])
        for index, name in enumerate(texts):
            cells = batch.column(name).to_pylist()
            known = [number for number, cell in enumerate(cells) if cell not in (None, "")]
            if known and isinstance(cells[known[0]], list | dict):
                raise DataError(f"{path}: the column {name!r} must have texts or numbers, not {shown(cells[known[0]])}")
            codes = values[name]
            written.add(
                f"column-{index}", np.array([codes.setdefault(as_text(cells[n]), len(codes)) for n in known], np.int32)
            )
            written.add(f"column-{index}-time", seconds[known])
        rows += len(seconds)
        previous = seconds[-1] if len(seconds) else previous
    if not rows:
        raise DataError(f"{path} has no rows")
    written.about = {
        "dates": kind.dates, "zone": kind.zone, "source": file_fingerprint(path),
        "values": {name: list(codes) for name, codes in values.items()},
    }  # fmt: skip


def check_increasing(times: Times, name: str, path: Path, rows: int, previous: float) -> None:
    """Raises DataError if times do not increase. `rows` is the number of rows before them, and `previous` the last time
    of these."""
    steps = np.diff(times.seconds, prepend=previous)
    if (steps > 0).all():
        return
    at = int(np.flatnonzero(~(steps > 0))[0])
    time, before = float(times.seconds[at]), float(times.seconds[at - 1] if at else previous)
    where, text = f"{path}, row {rows + at + 1:,}", moment(time, times.dates)
    if time == before:
        raise DataError(
            f"{where}: the time {text} is equal to that of the row before it; put the values of one time into one row"
        )
    raise DataError(
        f"{where}: the time {text} is not after that of the row before it, {moment(before, times.dates)}; sort the "
        f"table by {name!r}"
    )


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
    known = {*names}
    if missing := [name for name in columns if name not in known]:
        raise DataError(f"{path} has no column {missing[0]!r}; possible: {', '.join(names)}")
    try:
        if path.suffix.lower() == ".parquet":
            check_unpacked_size(path)
            with parquet.ParquetFile(path) as file:
                yield from file.iter_batches(columns=list(columns))
            return
        import pyarrow as arrow

        types = dict.fromkeys([time, *texts], arrow.string()) | {
            c: arrow.float64() for s in streams.values() for c in s
        }
        options = csv.ConvertOptions(
            include_columns=list(columns), column_types=types, strings_can_be_null=True,
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


class Times(NamedTuple):
    """The times of rows."""

    seconds: Float[np.ndarray, "n"]
    """Numbers of seconds; for dates, since 1970."""
    dates: bool = False
    offsets: Int[np.ndarray, "n"] | None = None
    """For dates with a zone: the seconds by which the local time of each row is ahead of UTC."""
    zone: str | None = None
    """For dates with a zone: its name in the file, `Z` if the file has this letter, else empty; None without a zone."""


def times_of(column: Any, name: str, path: Path, rows: int, before: Times | None = None) -> Times:
    """Returns the times in a column. Dates become seconds since 1970. `before` are the times of the rows before these.
    Raises DataError if a time is missing, is neither a number nor a date, or is of another kind than those before."""
    import pyarrow as arrow

    if column.null_count:
        at = column.is_null().to_pylist().index(True)
        raise DataError(f"{path}, row {rows + at + 1:,}: there is no time in column {name!r}")
    kinds = arrow.types
    if kinds.is_timestamp(column.type) or kinds.is_date(column.type):
        times = stored_dates(column)
    elif kinds.is_integer(column.type) or kinds.is_floating(column.type):
        times = Times(column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False))
    else:
        try:
            times = written_times(column)
        except DataError as error:
            raise DataError(f"{path}: column {name!r}: {error}") from None
    if times is None:
        values = column.to_pylist()
        at = next((number for number, value in enumerate(values) if not is_time(value)), 0)
        raise DataError(
            f"{path}, row {rows + at + 1:,}: the times in column {name!r} must be numbers of seconds, or dates such as "
            f"2026-11-30 08:00:00, not {shown(values[at])}"
        )
    if before is not None and (times.dates, times.zone is None) != (before.dates, before.zone is None):
        raise DataError(f"{path}, row {rows + 1:,}: the times in column {name!r} must all be numbers, all be dates "
                        "without a zone, or all be dates with a zone")  # fmt: skip
    if not (np.abs(times.seconds) <= LATEST).all():
        raise DataError(
            f"{path}: the dates in column {name!r} must be before the year 5138" if times.dates else
            f"{path}: the times in column {name!r} must be seconds, from {-LATEST:g} to {LATEST:g}; milliseconds "
            "and nanoseconds must be converted"
        )  # fmt: skip
    return times


def stored_dates(column: Any) -> Times:
    """Returns the times in a column of dates (parquet)."""
    import pyarrow as arrow
    from pyarrow import compute

    def seconds_of(dates: Any) -> np.ndarray:
        return dates.cast(arrow.timestamp("us"), safe=False).cast(arrow.int64()).to_numpy(zero_copy_only=False) / 1e6

    zone = getattr(column.type, "tz", None)
    if zone is None:
        return Times(seconds_of(column), dates=True)
    local, seconds = (seconds_of(each) for each in (compute.local_timestamp(column), column))
    return Times(seconds, True, np.rint(local - seconds).astype(np.int32), zone)


ZONED = r"[T ]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"
"""Matches a date with a time and a zone."""
OFFSET = r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)?$"


def written_times(column: Any) -> Times | None:
    """Returns the times in a column of texts: numbers of seconds, or dates in ISO 8601 or one of DATES. None if a text
    is none of these. Raises DataError if only some dates have a zone."""
    import pyarrow as arrow
    from pyarrow import compute

    if not arrow.types.is_string(column.type):
        return None
    text = compute.utf8_trim_whitespace(column)
    with suppress(arrow.ArrowInvalid):
        return Times(compute.cast(text, arrow.float64()).to_numpy(zero_copy_only=False))
    zoned = compute.match_substring_regex(text, ZONED).to_numpy(zero_copy_only=False)
    if zoned.any() and not zoned.all():
        raise DataError("some of the dates have a zone, such as +01:00, and others have none")
    for unit, size in (("us", 1e6), ("ns", 1e9)):
        with suppress(arrow.ArrowInvalid):
            dates = compute.cast(text, arrow.timestamp(unit, "UTC" if zoned.any() else None))
            seconds = dates.cast(arrow.int64()).to_numpy(zero_copy_only=False) / size
            return Times(seconds, True, *zone_of(text)) if zoned.any() else Times(seconds, True)
    dates = compute.coalesce(*(compute.strptime(text, form, "us", error_is_null=True) for form in DATES))
    if dates.null_count:
        return None
    return Times(dates.cast(arrow.int64()).to_numpy(zero_copy_only=False) / 1e6, dates=True)


def zone_of(text: Any) -> tuple[np.ndarray, str]:
    """Returns (the offset of each date in seconds, `Z` or an empty name)."""
    from pyarrow import compute

    parts = compute.extract_regex(text, OFFSET)
    sign, hours, minutes = (
        compute.fill_null(compute.struct_field(parts, [name]), "").to_numpy(zero_copy_only=False)
        for name in ("sign", "hours", "minutes")
    )
    numbers = [
        np.array([int(each or 0) for each in values.tolist()]) if len(values) else np.zeros(0, int)
        for values in (hours, minutes)
    ]
    offsets = np.where(sign == "-", -1, 1) * (3600 * numbers[0] + 60 * numbers[1])
    return offsets.astype(np.int32), "Z" if compute.any(compute.ends_with(text, "Z")).as_py() else ""


def is_time(value: Any) -> bool:
    """Returns whether a cell is a number or a date in ISO 8601 or one of DATES."""
    for read in (float, datetime.fromisoformat, *(partial(datetime.strptime, format=form) for form in DATES)):
        with suppress(ValueError, TypeError):
            read(value)
            return True
    return False


def numbers_of(column: Any, name: str, path: Path, rows: int) -> np.ndarray:
    """Returns the values of a channel as float32; a missing or infinite value is NaN. Raises DataError if they are not
    numbers, or do not fit into float32."""
    import pyarrow as arrow

    kinds = arrow.types
    if not any(
        is_kind(column.type) for is_kind in (kinds.is_integer, kinds.is_floating, kinds.is_boolean, kinds.is_null)
    ):
        raise DataError(f"{path}: the channel {name!r} must have numbers, not {shown(column[0].as_py())}")
    if kinds.is_boolean(column.type):
        column = column.cast(arrow.int8())
    exact = column.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        numbers = exact.astype(np.float32)
    if (is_large := np.isinf(numbers) & np.isfinite(exact)).any():
        raise DataError(f"{path}: the channel {name!r} has {exact[is_large][0]:g}, which does not fit into float32")
    return np.where(np.isfinite(numbers), numbers, np.nan)


def moment(seconds: float, dates: bool, offset: int | None = None, is_exact: bool = False) -> str:
    """Returns a time as text: `12.5 s`, or for a date `2026-11-30T08:00:12.500`, with the offset of its zone in seconds
    `2026-11-30T09:00:12.500+01:00`. `is_exact`: with all its digits, or with microseconds."""
    if not dates:
        return f"{seconds!r} s" if is_exact else f"{seconds:.10g} s"
    zone = UTC if offset is None else timezone(timedelta(seconds=offset))
    date = datetime.fromtimestamp(float(seconds), zone)
    date = date.replace(tzinfo=None) if offset is None else date
    return date.isoformat(timespec="microseconds" if is_exact else "milliseconds")


@dataclass(frozen=True)
class Moments:
    """The times of a prepared table as texts, with the offset from UTC with which the table was read."""

    arrays: Arrays

    @property
    def dates(self) -> bool:
        """Whether the times are dates."""
        return bool(self.arrays.about["dates"])

    def offset(self, seconds: float) -> int | None:
        """Returns the offset of a time from UTC in seconds: that of the row at or before it; after the last row, that
        of the zone of the table, if it has a name. None without a zone."""
        zone = self.arrays.about["zone"]
        if zone is None:
            return None
        times = self.arrays["time"]
        if zone not in ("", "Z") and seconds > times[-1]:
            with suppress(ZoneInfoNotFoundError, ValueError):
                return int(datetime.fromtimestamp(seconds, ZoneInfo(zone)).utcoffset().total_seconds())
        return int(self.arrays["offset"][max(int(np.searchsorted(times, seconds, side="right")) - 1, 0)])

    def text(self, seconds: float, is_exact: bool = False) -> str:
        """Returns a time as text (see `moment`)."""
        text = moment(seconds, self.dates, self.offset(seconds), is_exact)
        return text.replace("+00:00", "Z") if self.arrays.about["zone"] == "Z" else text
