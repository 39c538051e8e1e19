"""Tables of measurements over time (CSV or parquet), cut into windows: one row per time, one column per channel."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...files.reading import DataError
from ..fingerprint import Fingerprint
from ..prepared import Arrays
from ..sample_dataset import Divider, OwnFiles
from ..samples import ByColumn, Columns, Samples
from ..table_files import column_names, moment, prepare_table

UNITS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
"""The units of durations, in seconds."""
FUTURE = "_future"
"""The end of the name of a column with the measurements of a stream after the window."""
DURATION = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)\s*([a-z]*)\s*")


def seconds_of(duration: str | float, name: str) -> float:
    """Returns a duration in seconds: 0.25 for "250 ms", 7200 for "2 h", 5 for 5 or "5". Raises ValueError for other
    texts, and if the duration is not more than 0."""
    match = DURATION.fullmatch(str(duration))
    if not match or match[2] not in ("", *UNITS):
        raise ValueError(f"{name} must be a number of seconds, or a number with {', '.join(UNITS)}, not {duration!r}")
    seconds = float(match[1]) * UNITS.get(match[2], 1.0)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{name} must be more than 0, not {duration!r}")
    return seconds


@dataclass(frozen=True, kw_only=True)
class TableStream:
    """The channels of one sensor, which are the `columns` of the table. `rate` is the number of measurements per second
    in a window, or `every` the time between two of them (`1 h`): each window then has the same number of measurements,
    and NaN where one is missing. null: a window has the measurements of the table and their times.

    With `horizon` (`24 h`), the stream `s` also has the column `s_future`, for the task `forecast`: its measurements
    (steps, channels) in this time after the window; None if there are none. Raises ValueError if there is no column, if
    `rate` is not more than 0, if both `rate` and `every` are set, and for a `horizon` without them."""

    columns: list[str]
    rate: float | None = None
    every: str | float | None = None
    horizon: str | float | None = None

    def __post_init__(self):
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ValueError("columns must name at least one column, each once")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise ValueError(f"rate must be more than 0, not {self.rate}")
        if self.every is not None:
            seconds_of(self.every, "every")
            if self.rate is not None:
                raise ValueError("set `rate` or `every`, not both")
        if self.ahead and self.interval is None:
            raise ValueError("horizon needs `every` or `rate`: the measurements must be evenly spaced")

    @cached_property
    def interval(self) -> float | None:
        """The time between two measurements in seconds; None: the times of the table."""
        if self.every is not None:
            return seconds_of(self.every, "every")
        return None if self.rate is None else 1 / self.rate

    @cached_property
    def ahead(self) -> float:
        """The horizon in seconds; 0 without one."""
        return 0.0 if self.horizon is None else seconds_of(self.horizon, "horizon")

    def count(self, seconds: float) -> int:
        """Returns the number of measurements in a time, at least 1."""
        return max(1, round(seconds / self.interval))


@dataclass(frozen=True, kw_only=True)
class TableLabel:
    """The `column` whose value in a window is its label. `at`: the `first`, the `last` or the most frequent (`most`)
    value of the window. Missing values are not counted."""

    column: str
    at: Literal["first", "last", "most"] = "last"


class Table(OwnFiles):
    """`train`, `val` and `test` are tables: CSV files with a header, or parquet files. Every row has a time in the
    column `time`, a number of seconds or a date with time, which increases from row to row.

    A sample is a window of `window` (such as `5 s`, `250 ms` or `1 h`); a new window begins every `stride` (null: when
    the window before it ends). A pause that is longer than a window ends it: no window contains such a pause. `streams`
    are the sensors; a sample has {"values": (times, channels), "seconds": (times,)} for each of them, with the time
    since the start of the window, or only the values if the stream has a `rate`. A missing cell is a missing value
    (NaN). `files` are columns of paths, relative to the folder of the table, of which the window has the last one.
    `label` is the column of the label. The key of a sample is the time of its first and last measurement.

        {use: table, train: log.csv, time: time, window: 5 s, stride: 2.5 s, label: {column: state, at: last},
         streams: {vibration: {columns: [x, y, z], rate: 10}, climate: {columns: [temp, pressure], rate: 2}}}

    Without `val`, the last tenth of the windows of train is used for validation. A window that begins less than one
    window (and horizon) after the end of the last training window is in neither split. `data.split: {val: 0.2, test:
    0.2}` is also a division by time, unless it has `group` or `stratify`. The table is read in parts, and stored in the
    cache folder. Raises ValueError if a duration or a column is invalid."""

    def __init__(
        self, *, train: str, val: str | None = None, test: str | None = None, time: str, window: str | float,
        stride: str | float | None = None, streams: dict[str, TableStream], files: list[str] | None = None,
        label: TableLabel | None = None,
    ):  # fmt: skip
        super().__init__(train, val, test)
        self.time, self.streams, self.files, self.label = time, streams, files or [], label
        self.window, self.stride = window, stride
        self.size = seconds_of(window, "window")
        self.step = self.size if stride is None else seconds_of(stride, "stride")
        futures = [name + FUTURE for name, stream in streams.items() if stream.ahead]
        names = [*streams, *self.files, *([label.column] if label else []), *futures]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{twice[0]!r} is the name of two columns of the samples; rename the stream")
        if not streams:
            raise ValueError("streams must name at least one sensor")
        self.columns = tuple(names)

    def others(self) -> list[str]:
        used = {self.time, *self.columns, *(column for stream in self.streams.values() for column in stream.columns)}
        return [name for name in column_names(self._path(self.train)) if name not in used]

    def like(self, train: str, label: bool = True) -> Table:
        """Returns a data set with the same options for another table; without `label`, its column is not needed."""
        others = {"train": train, "val": None, "test": None} | ({} if label else {"label": None})
        return Table(**{**self.options, **others})

    def _path(self, where: str) -> Path:
        return Path(os.path.expanduser(where))

    def read(self, where: str) -> Windows:
        path = self._path(where)
        labels = {self.label.column: self.label.at} if self.label else {}
        channels = {name: stream.columns for name, stream in self.streams.items()}
        arrays = prepare_table(path, self.time, channels, self.files, list(labels))
        windows = Windows(arrays, path, dict(self.streams), tuple(self.files), labels, self.size, self.step)
        if not len(windows):
            times = arrays["time"]
            breaks = np.flatnonzero(np.diff(times) > self.size) + 1
            longest = max(part[-1] - part[0] for part in np.split(times, breaks))
            span = f"{longest:g} s" + f" ({longest / 3600:g} h)" * int(longest >= 3600)
            raise DataError(f"{path} has no window of {self.window}: the longest part without a pause is {span}")
        return windows

    def open(self, split: str) -> Samples:
        self.check_split(split)
        where = getattr(self, split)
        if self.val is not None or split == "test":
            return self.read(where)
        windows = self.read(self.train)
        return windows.select(in_time(windows, {"train": 0.9, "val": 0.1})[split])

    def latest(self) -> Windows:
        """Returns the window that ends with the last row of the last table (test, else val, else train), as the only
        sample. Raises DataError if the table is shorter than a window."""
        return replace(self.read(self.test or self.val or self.train), at_end=True)

    def command(self, run: str, columns: Collection[str]) -> str | None:
        steps = [stream.count(stream.ahead) for stream in self.streams.values() if stream.ahead]
        return f"chopmix predict {run} --horizon {steps[0]} --output next.csv --picture" if steps else None

    def divided(self, division: Divider) -> Table:
        if not getattr(division, "group", None) and not getattr(division, "stratify", None):
            division = InTime(division.splits, {"val": division.val, "test": division.test}, division.folds)
        return super().divided(division)


@dataclass(frozen=True)
class InTime:
    """A division of windows by time (see `in_time`). `shares` are the shares of val and test."""

    splits: tuple[str, ...]
    shares: Mapping[str, float]
    folds: int | None = None
    columns: tuple[str, ...] = ()

    def numbers(self, samples: Samples) -> dict[str, list[int]]:
        if self.folds:
            raise DataError("folds of a table need a column of groups (--group), since its windows are ordered in time")
        return in_time(
            samples, {"train": 1 - sum(self.shares.values()), **{s: self.shares[s] for s in self.splits[1:]}}
        )

    def notices(self, samples: Samples, numbers: Mapping[str, Sequence[int]]) -> list[str]:
        left_out = len(samples) - sum(map(len, numbers.values()))
        return [f"data.split: {left_out:,} windows between the splits are not used"] if left_out else []


def in_time(windows: Windows, shares: Mapping[str, float]) -> dict[str, list[int]]:
    """Returns the numbers of the windows in each split, the earliest in the first split. A split begins one window
    after the end of the last window of the previous split and its `ahead`. Raises DataError if a split has no
    windows."""
    numbers, first, gap = {}, 0, round((2 * windows.size + windows.ahead) / windows.step)
    ends = np.round(np.cumsum(list(shares.values())) * len(windows)).astype(int)
    starts = windows.starts
    for split, end in zip(shares, ends.tolist()):
        numbers[split] = list(range(first, end))
        if not numbers[split]:
            raise DataError(
                f"the split {split} has no windows: {len(windows)} windows are too few for a division in time, with a "
                f"gap of one window between two splits, which leaves out {gap:,} windows; use a shorter window, or "
                "larger shares (data.split)"
            )
        first = int(np.searchsorted(starts, starts[end - 1] + 2 * windows.size + windows.ahead, side="left"))
    return numbers


@dataclass(frozen=True)
class Windows(ByColumn):
    """The windows of a prepared table, in the order of time. `arrays` is the prepared table; `labels` maps columns of
    labels to the value that a window has (see `TableLabel`)."""

    arrays: Arrays
    path: Path
    streams: Mapping[str, TableStream]
    files: tuple[str, ...]
    labels: Mapping[str, str]
    size: float
    step: float
    chosen: tuple[int, ...] | None = None
    """The numbers of the windows, if these are only some of all windows."""
    at_end: bool = False
    """Whether there is only one window, which ends with the last row."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @property
    def ahead(self) -> float:
        """The time after a window, in seconds, whose measurements are in columns of the future."""
        return max(stream.ahead for stream in self.streams.values())

    @cached_property
    def starts(self) -> np.ndarray:
        """The times at which the windows start, in seconds."""
        starts = self._all_starts
        return starts if self.chosen is None else starts[list(self.chosen)]

    @cached_property
    def _jitter(self) -> dict[str, float]:
        """For each stream with an interval, the time by which a measurement may be too early for its slot: half the
        median time between two measurements, and at most half an interval."""
        intervals = {f"stream-{number}": stream.interval for number, stream in enumerate(self.streams.values())}
        return {
            array: min(typical_step(self.arrays[f"{array}-time"]), interval) / 2
            for array, interval in intervals.items()
            if interval
        }

    def delay(self, name: str) -> float:
        """Returns the time from the start of a slot of a stream with an interval to its last measurement, in seconds:
        50 minutes for an interval of an hour and a measurement every ten minutes."""
        times = self.arrays[f"stream-{list(self.streams).index(name)}-time"]
        return max(self.streams[name].interval - typical_step(times), 0.0)

    @cached_property
    def _tolerance(self) -> float:
        """The time by which two times may differ that are meant to be equal: a thousandth of the median step."""
        return 1e-3 * typical_step(self.arrays["time"])

    @property
    def _all_starts(self) -> np.ndarray:
        times = self.arrays["time"]
        if self.at_end:
            return times[-1:] + typical_step(times) - self.size
        return starts_of(times, self.size, self.step)

    @cached_property
    def keys(self) -> Sequence[str]:
        times, starts = self.arrays["time"], self._all_starts
        firsts = np.searchsorted(times, starts - self._tolerance, side="left")
        lasts = np.searchsorted(times, starts + self.size - self._tolerance, side="left") - 1
        for moment_of in (moment, exact_moment):  # all windows have different keys
            texts = [
                [moment_of(time, self.arrays.about["dates"]) for time in times[n].tolist()] for n in (firsts, lasts)
            ]
            keys = [f"{first} to {last}" for first, last in zip(*texts)]
            if len(set(keys)) == len(keys):
                break
        else:
            keys = [f"{key} ({number})" for number, key in enumerate(keys)]
        return keys if self.chosen is None else [keys[number] for number in self.chosen]

    def select(self, numbers: Sequence[int]) -> Windows:
        numbers = numbers if self.chosen is None else [self.chosen[number] for number in numbers]
        return replace(self, chosen=tuple(numbers))

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        start, row = float(self.starts[number]), {}
        for name, stream in self.streams.items():
            if names is None or name in names:
                row[name] = self._measurements(name, stream, start, self.size)
            if stream.ahead and (names is None or name + FUTURE in names):
                row[name + FUTURE] = self._measurements(name, stream, start + self.size, stream.ahead)
        for name in self.files:
            if names is None or name in names:
                value = self._value(name, start, "last")
                row[name] = None if value is None else self.path.parent / str(value)
        for name, at in self.labels.items():
            if names is None or name in names:
                row[name] = self._value(name, start, at)
        return row

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        streams = {
            name: {key: value for key, value in asdict(stream).items() if value is not None or key == "rate"}
            for name, stream in self.streams.items()
        }
        options = [streams, list(self.files), dict(self.labels), self.size, self.step, list(self.chosen or ())]
        options += [self.at_end] if self.at_end else []
        return Fingerprint("Windows", self.arrays.about["source"], options).hex

    def _range(self, name: str, start: float, size: float) -> tuple[np.ndarray, slice]:
        """Returns the times of a column or stream, and the part of them in the `size` seconds from `start`."""
        times, allowed = self.arrays[f"{name}-time"], self._tolerance
        first, end = np.searchsorted(times, [start - allowed, start + size - allowed], side="left")
        return times, slice(int(first), int(end))

    def _measurements(self, name: str, stream: TableStream, start: float, size: float) -> Any:
        array = f"stream-{list(self.streams).index(name)}"
        times, part = self._range(array, start, size)
        if part.start == part.stop:
            return None
        values, seconds = np.array(self.arrays[array][part]), times[part] - start
        if stream.interval is None:
            return {"values": values, "seconds": np.maximum(seconds, 0.0)}
        count = stream.count(size)
        grid = np.full((count, len(stream.columns)), np.nan, np.float32)
        slots = np.floor((seconds + self._jitter[array]) / stream.interval + 1e-9)
        slots = np.clip(slots, 0, count - 1).astype(int)
        if (np.diff(slots) > 0).all():
            grid[slots] = values
            return grid
        for slot, row in zip(slots.tolist(), values):
            grid[slot] = np.where(np.isnan(row), grid[slot], row)  # the last measurement of the slot
        return grid

    def _value(self, name: str, start: float, at: str) -> Any:
        array = f"column-{[*self.files, *self.labels].index(name)}"
        _, part = self._range(array, start, self.size)
        codes = self.arrays[array][part].tolist()
        if not codes:
            return None
        code = {"first": codes[0], "last": codes[-1]}.get(at)
        return self.arrays.about["values"][name][Counter(codes).most_common(1)[0][0] if code is None else code]


def typical_step(times: np.ndarray) -> float:
    """Returns the median time between two rows, from the first 100,000 rows; 0 for one row."""
    steps = np.diff(times[:100_000])
    return float(np.median(steps)) if len(steps) else 0.0


def starts_of(times: np.ndarray, size: float, step: float) -> np.ndarray:
    """Returns the starts of all windows. A part of the table without a pause longer than `size` has windows that start
    at its first time and every `step` seconds, as long as they end at most one typical step after its last time."""
    extra = typical_step(times)
    breaks = np.flatnonzero(np.diff(times) > size) + 1
    starts = []
    for first, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(times)]):
        length = times[end - 1] + extra - times[first]
        count = int(np.floor((length - size) / step + 1e-6)) + 1 if length >= size * (1 - 1e-9) else 0
        starts.append(times[first] + step * np.arange(count))
    starts = np.concatenate(starts)
    filled = np.searchsorted(times, starts + size - 1e-3 * extra) > np.searchsorted(times, starts - 1e-3 * extra)
    return starts[filled]


def exact_moment(seconds: float, dates: bool) -> str:
    """Returns a time as text like `moment`, with all its digits, or with microseconds."""
    if not dates:
        return f"{seconds!r} s"
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
