"""The windows of a table of measurements over time, as samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..files.reading import DataError
from .fingerprint import Fingerprint
from .prepared import Arrays
from .samples import Blocks, ByColumn, Columns
from .table_clock import DIFFERENCE, TOLERANCE, Clock, Line, clock_of, median_step, parts_of_times
from .table_files import Moments
from .table_streams import FUTURE, TableStream, duration

NEAR = 0.1
"""The largest share of an interval by which the last window may end late, because the line is not known exactly."""
SPREAD = 500
"""The number of windows from which the notice on empty slots is computed."""


class Bounds(NamedTuple):
    """All windows of a table, in the order of time."""

    origins: Float[np.ndarray, "w"]
    """The time of the first row of the part of the table that contains a window."""
    begins: Float[np.ndarray, "w"]
    """The time at which a window begins, relative to its origin."""
    firsts: Float[np.ndarray, "w"]
    """The time of the first measurement in a window."""
    lasts: Float[np.ndarray, "w"]


class Edges(NamedTuple):
    """The begin and the end of a part of the table. All times are relative to the origin."""

    origin: float
    """The time of the first row."""
    begin: float
    """The begin of the first window: the time of the first row on the line of its stream, the least of all streams."""
    last: float
    """The time of the last row on the line of its stream."""
    step: float
    """The time from the last row to the end of the part: the interval of its stream in the YAML; for a stream without
    an interval, and for the last window of a stream that is down-sampled, the median interval of the table."""
    uncertainty: float
    """The largest distance of a measurement from that line."""


def union_of(arrays: Arrays, streams: Collection[str]) -> Float[np.ndarray, "n"]:
    """Returns the times of all rows in which a stream has a value."""
    times = [np.asarray(arrays[f"stream-{number}-time"]) for number in range(len(streams))]
    return reduce(lambda one, other: one if np.array_equal(one, other) else np.union1d(one, other), times)


def clocks_of(arrays: Arrays, streams: Mapping[str, TableStream], size: float) -> dict[str, Clock]:
    """Returns the clocks of the streams with an interval. `size` is the length of a window in seconds."""
    union = union_of(arrays, streams)
    origins = np.array([union[first] for first, _ in parts_of_times(union, size)]) if len(union) else np.zeros(1)
    return {
        name: clock_of(np.asarray(arrays[f"stream-{number}-time"]), stream.interval, size, origins)
        for number, (name, stream) in enumerate(streams.items())
        if stream.interval is not None
    }


@dataclass(frozen=True)
class Windows(ByColumn):
    """The windows of a prepared table, in the order of time. `arrays` is the prepared table; `labels` maps columns of
    labels to the value that a window has (see `TableLabel`); `clocks` has the streams with an interval.

    A window begins at a time, and a stream with an interval has a fixed number of slots in it: those from the first
    slot whose time is at least the begin of the window minus half an interval. The slots of the horizon follow."""

    arrays: Arrays
    path: Path
    streams: Mapping[str, TableStream]
    files: tuple[str, ...]
    labels: Mapping[str, str]
    size: float
    step: float
    clocks: Mapping[str, Clock]
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
    def moments(self) -> Moments:
        """The times of the table as texts."""
        return Moments(self.arrays)

    # ------------------------------------------------------------------------------------------------ all windows

    @cached_property
    def _union(self) -> Float[np.ndarray, "n"]:
        return union_of(self.arrays, self.streams)

    @cached_property
    def _all(self) -> Bounds:
        if not len(self._union):
            return Bounds(*[np.empty(0)] * 4)
        parts = parts_of_times(self._union, self.size)
        if self.at_end:
            edges = self._last
            begin = edges.last + edges.step - self.size
            times = np.concatenate([
                self._times(name)[rows]
                for name in self.streams
                for rows, _ in self._rows(name, edges.origin, begin, 0, self.slots(name))
            ])  # fmt: skip
            bounds = (edges.origin, begin, times.min(initial=np.inf), times.max(initial=-np.inf))
            return Bounds(*(np.array([value]) for value in bounds))
        bounds = Bounds(*map(np.concatenate, zip(*(self._bounds(*part) for part in parts), strict=True)))
        return Bounds(*(each[bounds.firsts <= bounds.lasts] for each in bounds))

    @cached_property
    def _last(self) -> Edges:
        """The edges of the last part of the table."""
        return self._edges(*parts_of_times(self._union, self.size)[-1])

    def _edges(self, first: int, end: int) -> Edges:
        """Returns the edges of a part of the table."""
        origin, last = float(self._union[first]), float(self._union[end - 1])
        begins, ends = [], []
        for name in self.streams:
            times, clock = self._times(name), self.clocks.get(name)
            low, high = times.searchsorted((origin, last)).tolist()
            if low == len(times) or times[low] > last:
                continue
            is_last = high < len(times) and times[high] == last
            if clock and clock.is_regular:
                numbers, line = self._numbers(name), clock.line_of(high if is_last else low)
                begins.append(clock.line_of(low).relative(numbers[low]))
                ends += [(line.relative(numbers[high]), clock.every, line.largest)] if is_last else []
            else:
                begins.append(float(times[low]) - origin)
                step = clock.every if clock and not self.at_end else self._step(name)
                ends += [(last - origin, step, 0.0)] if is_last else []
        return Edges(origin, float(min(begins)), *map(float, max(ends, key=lambda each: each[0] + each[1])))

    def _bounds(self, first: int, end: int) -> Bounds:
        """Returns the windows of a part of the table. A window without a measurement has infinite bounds."""
        edges = self._edges(first, end)
        length = edges.last + edges.step - edges.begin + min(edges.uncertainty, NEAR * edges.step)
        count = max(0, int(np.floor((length - self.size) / self.step + TOLERANCE)) + 1)
        begins = edges.begin + self.step * np.arange(count)
        firsts, lasts = np.full(count, np.inf), np.full(count, -np.inf)
        for name in self.streams:
            times = self._times(name)
            for part, low, high in self._spans(name, edges.origin, float(self._union[end - 1]), begins):
                has_rows = low < high
                where = np.flatnonzero(has_rows) + part.start
                firsts[where] = np.minimum(firsts[where], times[low[has_rows]])
                lasts[where] = np.maximum(lasts[where], times[high[has_rows] - 1])
        return Bounds(np.full(count, edges.origin), begins, firsts, lasts)

    def _spans(
        self, name: str, origin: float, last: float, begins: Float[np.ndarray, "w"]
    ) -> Iterator[tuple[slice, Int[np.ndarray, "v"], Int[np.ndarray, "v"]]]:
        """Yields (some of these windows, their first rows, the ends of their rows) of a stream, for the windows in the
        part of the table from `origin` to `last`."""
        times, clock = self._times(name), self.clocks.get(name)
        if clock is None or not clock.is_regular:
            early = TOLERANCE * (self._step(name) if clock is None else clock.every)
            limits = [np.searchsorted(times, origin + begins + edge - early) for edge in (0.0, self.size)]
            yield slice(0, len(begins)), *limits
            return
        numbers, slack = self._numbers(name), 2 * clock.every + DIFFERENCE * self.size
        for line in clock.lines_within(origin, last):
            edges = line.start - origin - self.size - slack, line.stop - origin + slack
            part = slice(*np.searchsorted(begins, edges).tolist())
            if part.start < part.stop:
                first = self._first_slot(name, line, origin, begins[part])
                of_line = numbers[line.first : line.end]
                low, high = (np.searchsorted(of_line, first + shift) for shift in (0, self.slots(name)))
                yield part, line.first + low, line.first + high

    @cached_property
    def starts(self) -> Float[np.ndarray, "w"]:
        """The times at which the windows start, in seconds."""
        starts = self._all.origins + self._all.begins
        return starts if self.chosen is None else starts[list(self.chosen)]

    @cached_property
    def keys(self) -> Sequence[str]:
        edges = [self._all.firsts.tolist(), self._all.lasts.tolist()]
        for is_exact in (False, True):  # all windows have different keys
            texts = [[self.moments.text(time, is_exact) for time in each] for each in edges]
            keys = [f"{first} to {last}" for first, last in zip(*texts)]
            if len(set(keys)) == len(keys):
                break
        else:
            keys = [f"{key} ({number})" for number, key in enumerate(keys)]
        return keys if self.chosen is None else [keys[number] for number in self.chosen]

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, numbers: Sequence[int]) -> Windows:
        numbers = numbers if self.chosen is None else [self.chosen[number] for number in numbers]
        return replace(self, chosen=tuple(map(int, numbers)))

    @property
    def blocks(self) -> Blocks:
        """A block begins with the first window that begins one window and horizon after the begin of the block before
        it, or in another part of the table."""
        origins, begins, length = self._all.origins, self._all.begins, self.size + self.ahead
        chosen = np.arange(len(self)) if self.chosen is None else np.array(self.chosen)
        of_window, first, number = {}, -1, -1
        for window in np.unique(chosen).tolist():
            if first < 0 or origins[window] != origins[first] or begins[window] - begins[first] > length * (1 - NEAR):
                first, number = window, number + 1
            of_window[window] = number
        return Blocks(np.array([of_window[window] for window in chosen.tolist()], dtype=np.int64), duration(length))

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        streams = {
            name: {key: value for key, value in asdict(stream).items() if value is not None or key == "rate"}
            for name, stream in self.streams.items()
        }
        options = [streams, list(self.files), dict(self.labels), self.size, self.step, list(self.chosen or ())]
        options += [self.at_end] if self.at_end else []
        return Fingerprint("Windows", "slots", self.arrays.about["source"], options).hex

    def notices(self) -> list[str]:
        """Returns sentences about clocks and empty slots that the user should read."""
        lines = [line for name, clock in self.clocks.items() for line in clock.notices(name)]
        return [*lines, *(line for name in self.clocks for line in self._empty_slots(name))]

    def _empty_slots(self, name: str) -> Iterator[str]:
        """Yields a sentence about the slots of a stream that are empty in more than half of the windows."""
        numbers = range(0, len(self), max(1, len(self) // SPREAD))
        slots, steps = self.slots(name), self.streams[name].steps
        filled = np.zeros(slots + steps)
        for number in numbers:
            for column, part in ((name, slice(0, slots)), (name + FUTURE, slice(slots, None))):
                value = self.row(number, (column,)).get(column)
                if value is not None:
                    values = value["values"] if column == name else value
                    filled[part] += ~np.isnan(values).all(axis=1)
        empty = np.flatnonzero(filled < len(numbers) / 2).tolist()
        if empty:
            of = f"{slots} slots" + (f" and {steps} steps" if steps else "")
            shown = ", ".join(str(slot + 1) for slot in empty[:10]) + ", ..." * (len(empty) > 10)
            yield f"stream {name!r}: {len(empty)} of {of} (number {shown}) are empty in more than half of the windows"

    # ------------------------------------------------------------------------------------------------- one window

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        number = number if self.chosen is None else self.chosen[number]
        origin, begin = float(self._all.origins[number]), float(self._all.begins[number])
        row: dict[str, Any] = {}
        for name, stream in self.streams.items():
            if names is None or name in names:
                row[name] = self._measurements(name, origin, begin)
            if stream.ahead and (names is None or name + FUTURE in names):
                row[name + FUTURE] = self._grid(name, origin, begin, self.slots(name), stream.steps)
        for name in self.files:
            if names is None or name in names:
                file = self._value(name, origin, begin, "last")
                row[name] = None if file is None else self.path.parent / str(file)
        for name, at in self.labels.items():
            if names is None or name in names:
                row[name] = self._value(name, origin, begin, at)
        return row

    def times_of_slots(self, number: int, name: str, first: int, count: int) -> Float[np.ndarray, "t"]:
        """Returns the times of `count` slots of a stream with an interval, from the slot `first` of a window: those of
        its line, or, if the stream is down-sampled, those of the last measurement in each slot."""
        number = number if self.chosen is None else self.chosen[number]
        origin, begin = float(self._all.origins[number]), float(self._all.begins[number])
        clock = self.clocks[name]
        if clock.is_regular:
            line = clock.lines_between(origin + begin, origin + begin + self.size)[-1]
            return line.time(int(self._first_slot(name, line, origin, begin)) + first + np.arange(count))
        return origin + (begin + (first + 1 + np.arange(count)) * clock.every - clock.step)

    def values_in(self, number: int, name: str) -> set[Any]:
        """Returns the different values of a column of labels in a window and in its horizon."""
        number = number if self.chosen is None else self.chosen[number]
        codes = self._codes(name, float(self._all.origins[number]), float(self._all.begins[number]), self.ahead)
        return {self.arrays.about["values"][name][code] for code in set(codes)}

    def slots(self, name: str) -> int:
        """Returns the number of slots of a stream in a window; 0 for a stream without an interval."""
        return self.streams[name].count(self.size) if name in self.clocks else 0

    def _array(self, name: str) -> str:
        return f"stream-{list(self.streams).index(name)}"

    def _times(self, name: str) -> Float[np.ndarray, "n"]:
        return self.arrays[f"{self._array(name)}-time"]

    def _step(self, name: str) -> float:
        """The median time between two measurements of a stream."""
        return self._steps[name]

    @cached_property
    def _steps(self) -> dict[str, float]:
        return {
            name: self.clocks[name].step if name in self.clocks else median_step(self._times(name))
            for name in self.streams
        }

    def _numbers(self, name: str) -> Int[np.ndarray, "n"]:
        """The slot of each measurement of a regular stream on its line."""
        return self._all_numbers[name]

    @cached_property
    def _all_numbers(self) -> dict[str, Int[np.ndarray, "n"]]:
        return {name: clock.numbers(self._times(name)) for name, clock in self.clocks.items() if clock.is_regular}

    def _first_slot(self, name: str, line: Line, origin: float, begin: Any) -> Any:
        """Returns the first slot of windows on a line."""
        half = self.clocks[name].every / 2
        if self.at_end:  # the last slot is that of the last measurement, or a later one that has passed at the last row
            passed = np.floor(line.number(self._last.last, origin) + TOLERANCE)
            return max(passed, np.rint(line.number(line.stop))) - self.slots(name) + 1
        return np.ceil(line.number(begin - half, origin) - TOLERANCE)

    def _rows(self, name: str, origin: float, begin: float, first: int, count: int) -> Iterator[tuple[slice, Any]]:
        """Yields (rows, their slots from 0) for the measurements of a stream in `count` slots from the slot `first` of
        a window; for a stream without an interval, the rows of the window."""
        times, clock = self._times(name), self.clocks.get(name)
        if clock is None:
            early = TOLERANCE * self._step(name)
            yield slice(*times.searchsorted((origin + begin - early, origin + begin + self.size - early))), None
            return
        start = origin + begin + first * clock.every
        end = start + count * clock.every
        if not clock.is_regular:
            low, high = times.searchsorted((start - clock.every, end + clock.every)).tolist()
            slots = np.floor((times[low:high] - origin - begin) / clock.every + TOLERANCE).astype(int) - first
            low, high = (low + edge for edge in slots.searchsorted((0, count)).tolist())
            yield slice(low, high), slots[(slots >= 0) & (slots < count)]
            return
        slack = DIFFERENCE * (first + count) * clock.every
        for line in clock.lines_between(start - slack, end + slack):
            of_line = self._numbers(name)[line.first : line.end]
            start_slot = int(self._first_slot(name, line, origin, begin)) + first
            low, high = of_line.searchsorted((start_slot, start_slot + count)).tolist()
            yield slice(line.first + low, line.first + high), of_line[low:high] - start_slot

    def _grid(self, name: str, origin: float, begin: float, first: int, count: int) -> np.ndarray | None:
        """Returns the measurements in slots, (count, channels), NaN where one is missing; None if there are none."""
        array, grid = self.arrays[self._array(name)], None
        for rows, slots in self._rows(name, origin, begin, first, count):
            if rows.start == rows.stop:
                continue
            if grid is None:
                grid = np.full((count, array.shape[1]), np.nan, np.float32)
            if self.clocks[name].is_regular:
                grid[slots] = array[rows]  # of two rows in a slot, the later one counts
                continue
            for channel, values in enumerate(array[rows].T):  # the last value of each slot
                is_known = ~np.isnan(values)
                grid[slots[is_known], channel] = values[is_known]
        return grid

    def _measurements(self, name: str, origin: float, begin: float) -> dict[str, Any] | None:
        """Returns the measurements of a stream in a window with their times or with their interval."""
        if name in self.clocks:
            grid = self._grid(name, origin, begin, 0, self.slots(name))
            return None if grid is None else {"values": grid, "interval": self.clocks[name].every}
        ((rows, _),) = self._rows(name, origin, begin, 0, 0)
        if rows.start == rows.stop:
            return None
        seconds = self._times(name)[rows] - origin - begin
        return {"values": np.array(self.arrays[self._array(name)][rows]), "seconds": np.maximum(seconds, 0.0)}

    def _codes(self, name: str, origin: float, begin: float, ahead: float = 0.0) -> list[int]:
        """Returns the indices of the values of a column of labels or files in a window and in the `ahead` seconds after
        it. A row belongs to the slot of the regular stream with the shortest interval; without such a stream, its
        measured time decides."""
        array = f"column-{[*self.files, *self.labels].index(name)}"
        times, start = self.arrays[f"{array}-time"], origin + begin
        regular = [each for each, clock in self.clocks.items() if clock.is_regular]
        if not regular:
            early = TOLERANCE * min(self._step(each) or self.size for each in self.streams)
            low, high = times.searchsorted((start - early, start + self.size + ahead - early))
            return self.arrays[array][low:high].tolist()
        finest = min(regular, key=lambda each: self.clocks[each].every)
        clock = self.clocks[finest]
        slots, slack = self.slots(finest) + int(np.ceil(ahead / clock.every)), 2 * clock.every + DIFFERENCE * self.size
        low, high = times.searchsorted((start - slack, start + self.size + ahead + slack))
        near = times[low:high]
        indices = clock.line_at(near)
        inside = np.zeros(len(near), bool)
        for index in set(indices.tolist()):
            line = clock.lines[index]
            numbers = np.rint(line.number(near)) - int(self._first_slot(finest, line, origin, begin))
            inside |= (indices == index) & (numbers >= 0) & (numbers < slots)
        return self.arrays[array][low:high][inside].tolist()

    def _value(self, name: str, origin: float, begin: float, at: str) -> Any:
        codes = self._codes(name, origin, begin)
        if not codes:
            return None
        code = {"first": codes[0], "last": codes[-1]}.get(at)
        return self.arrays.about["values"][name][Counter(codes).most_common(1)[0][0] if code is None else code]


def check_windows(windows: Windows, window: str | float) -> Windows:
    """Returns the windows. Raises DataError if a stream does not fit its interval, or if there is no window."""
    for name, clock in windows.clocks.items():
        clock.check(name, windows.path)
    if not len(windows):
        union = union_of(windows.arrays, windows.streams)
        if not len(union):
            raise DataError(f"{windows.path}: no stream has a value")
        longest = max(union[end - 1] - union[first] for first, end in parts_of_times(union, windows.size))
        span = f"{longest:g} s" + f" ({longest / 3600:g} h)" * int(longest >= 3600)
        raise DataError(f"{windows.path} has no window of {window}: the longest part without a pause is {span}")
    return windows
