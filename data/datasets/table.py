"""Tables of measurements over time (CSV or parquet), cut into windows: one row per time, one column per channel."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...files.reading import DataError
from ..sample_dataset import Divider, OwnFiles
from ..samples import Joined, Samples
from ..table_files import column_names, prepare_table
from ..table_streams import FUTURE, TableLabel, TableStream, check_multiples, seconds_of
from ..table_windows import Windows, check_windows, clocks_of


class Table(OwnFiles):
    """`train`, `val` and `test` are tables: CSV files with a header, or parquet files. Every row has a time in the
    column `time`, a number of seconds or a date with time, which increases from row to row.

    A sample is a window of `window` (such as `5 s`, `250 ms` or `1 h`); a new window begins every `stride` (null: when
    the window before it ends). A pause that is longer than a window ends it: no window contains such a pause. `streams`
    are the sensors; a sample has {"values": (times, channels), "seconds": (times,)} for each of them, with the time
    since the start of the window, or {"values": (slots, channels), "interval": 0.1} if the stream has a `rate` or
    `every`; `window` and `horizon` are then multiples of this interval. A missing cell is a missing value (NaN).
    `files` are columns of paths, relative to the folder of the table, of which the window has the last one. `label` is
    the column of the label. The key of a sample is the time of its first and last measurement, with the zone of the
    table.

        {use: table, train: log.csv, time: time, window: 5 s, stride: 2.5 s, label: {column: state, at: last},
         streams: {vibration: {columns: [x, y, z], rate: 10}, climate: {columns: [temp, pressure], rate: 2}}}

    Without `val`, the last tenth of the windows of train is used for validation. A window that begins less than one
    window (and horizon) after the end of the last training window is in neither split. `data.split: {val: 0.2, test:
    0.2}` is also a division by time, unless it has `group` or `stratify`; with `group`, windows with two values of this
    column are in no split. The table is read in parts, and stored in the cache folder. Raises ValueError if a duration
    or a column is invalid."""

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
        check_multiples(window, streams)
        self.columns = tuple(names)
        self._opened: dict[tuple[str, ...], Windows] = {}

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
        known = {*self.streams, *self.files, *(name + FUTURE for name in self.streams)}
        labels = {name: "last" for name in self.columns if name not in known}
        labels |= {self.label.column: self.label.at} if self.label else {}
        channels = {name: stream.columns for name, stream in self.streams.items()}
        arrays = prepare_table(path, self.time, channels, self.files, list(labels))
        key = (where, str(arrays.about["source"]), *labels)
        if key not in self._opened:
            clocks = clocks_of(arrays, self.streams, self.size)
            windows = Windows(arrays, path, dict(self.streams), tuple(self.files), labels, self.size, self.step, clocks)
            self._opened[key] = check_windows(windows, self.window)
        return self._opened[key]

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

    def notices(self) -> list[str]:
        where = dict.fromkeys(each for each in (self.train, self.val) if each is not None)
        lines = [line for each in where for line in self.read(each).notices()]
        if group := self.groups:
            windows = self.read(self.train)
            mixed = len(windows) - len(of_one_group(windows, group))
            lines += [f"data.split: {mixed:,} windows with several values in column {group!r} are not used"] * bool(
                mixed
            )
        return [*lines, *super().notices()]

    @property
    def groups(self) -> str | None:
        """The column of the groups that no two splits share."""
        return getattr(self.division, "group", None)

    def undivided(self) -> Samples:
        samples = super().undivided()
        if not self.groups:
            return samples
        if isinstance(samples, Joined):  # folds of a table with another table for validation
            return Joined({name: of_one_group(part, self.groups) for name, part in samples.parts.items()})
        return of_one_group(samples, self.groups)

    def command(self, run: str, columns: Collection[str]) -> str | None:
        steps = [stream.steps for stream in self.streams.values() if stream.ahead]
        return f"chopmix forecast {run} --horizon {steps[0]} --output next.csv --picture" if steps else None

    def divided(self, division: Divider) -> Table:
        if getattr(division, "order", None):
            raise DataError(
                "data.split.order: the windows of a table are always divided in the order of time; remove it"
            )
        if not getattr(division, "group", None) and not getattr(division, "stratify", None):
            division = InTime(division.splits, {"val": division.val, "test": division.test}, division.folds)
        return super().divided(division)


def of_one_group(windows: Windows, group: str) -> Windows:
    """Returns the windows in which, and in whose horizon, the column `group` has at most one value."""
    numbers = [number for number in range(len(windows)) if len(windows.values_in(number, group)) < 2]
    return windows if len(numbers) == len(windows) else windows.select(numbers)


@dataclass(frozen=True)
class InTime:
    """A division of windows by time (see `in_time`). `shares` are the shares of val and test."""

    splits: tuple[str, ...]
    shares: Mapping[str, float]
    folds: int | None = None
    columns: tuple[str, ...] = ()

    def numbers(self, samples: Samples, splits: Sequence[str]) -> dict[str, list[int]]:
        if self.folds:
            raise DataError("folds of a table need a column of groups (--group), since its windows are ordered in time")
        shares = {split: self.shares[split] for split in splits[1:]}
        return in_time(samples, {"train": 1 - sum(shares.values()), **shares})

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
