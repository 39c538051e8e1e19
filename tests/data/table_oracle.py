"""Random tables of which every measurement's slot is known, and what windows of such a table contain.

The generator chooses, for each stream, a phase, a true interval, jitter, missing rows and cells, pauses, and the slot k
of each measurement; the value of a measurement encodes its stream and its k. What a window must contain follows from
these slots alone, by the rules of the data set `table`: no part of the program is used.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class StreamTruth:
    """A stream of a random table."""

    name: str
    every: float
    """The interval in the YAML."""
    interval: float
    """The true interval of the sensor."""
    phase: float
    times: np.ndarray
    """The measured times."""
    slots: np.ndarray
    """The slot of each measurement, on one grid over all pauses."""
    cells: np.ndarray
    """The values (rows, channels); NaN for a missing cell."""
    steps: int = 0
    """The number of steps of the horizon."""
    sampled: bool = False
    """Whether the stream is down-sampled."""

    def true_time(self, slot: np.ndarray | int) -> np.ndarray | float:
        return self.phase + self.interval * np.asarray(slot)


@dataclass
class TableTruth:
    """A random table."""

    start: float
    """The time of the first row, which is added to all times."""
    window: float
    stride: float
    streams: list[StreamTruth] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Writes the table as CSV: one row per time, the cells of all streams that have this time."""
        names = [f"{stream.name}{channel}" for stream in self.streams for channel in range(stream.cells.shape[1])]
        rows: dict[float, dict[str, float]] = {}
        for stream in self.streams:
            for time, cells in zip(stream.times.tolist(), stream.cells.tolist(), strict=True):
                row = rows.setdefault(time, {})
                row |= {f"{stream.name}{n}": value for n, value in enumerate(cells) if value == value}
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["time", *names])
            for time in sorted(rows):
                if rows[time]:
                    writer.writerow([repr(time), *(rows[time].get(name, "") for name in names)])

    def options(self) -> dict:
        """The options of the data set."""
        streams = {}
        for stream in self.streams:
            columns = [f"{stream.name}{channel}" for channel in range(stream.cells.shape[1])]
            streams[stream.name] = {"columns": columns, "every": stream.every}
            if stream.steps:
                streams[stream.name]["horizon"] = stream.steps * stream.every
        return {"time": "time", "window": self.window, "stride": self.stride, "streams": streams}


def is_promised(table: TableTruth) -> bool:
    """Whether the jitter of every part of every stream is so small that its slots are read correctly. The phase of a
    part with fewer than 20 rows is known only without much jitter."""
    for stream in table.streams:
        jitter = np.abs(stream.times - stream.true_time(stream.slots)) / stream.every
        breaks = np.flatnonzero(np.diff(stream.times) > table.window * (1 - 1e-6)) + 1
        for part in np.split(jitter, breaks):
            limit = 0.45 if len(part) >= 200 else 0.40 if len(part) >= 50 else 0.35 if len(part) >= 20 else 0.05
            if part.max() > limit:
                return False
    return True


def random_table(random: np.random.Generator, **choices) -> TableTruth:
    """Returns a random table whose slots can be read correctly (see `any_table`)."""
    while not is_promised(table := any_table(random, **choices)):
        pass
    return table


def any_table(
    random: np.random.Generator, jitter: float | None = None, drift: float | None = None, streams: int | None = None,
    rows: int | None = None, stride: float | None = None, whole: bool = False,
) -> TableTruth:  # fmt: skip
    """Returns a random table. `whole`: without missing rows and pauses."""
    count = int(random.integers(1, 4)) if streams is None else streams
    base = float(random.choice([0.05, 0.1, 1.0, 60.0, 3600.0]))
    length = int(rows or random.choice([random.integers(20, 60), random.integers(60, 200), random.integers(200, 1000)]))
    # the documented limits: 0.45 in parts of at least 200 rows, 0.40 from 50 rows, 0.35 in shorter ones
    most = 0.44 if length >= 240 else 0.39 if length >= 65 else 0.34
    start = float(random.choice([0.0, 100.0, 1.7e9]))
    window_slots = int(random.integers(4, 16))
    window = window_slots * base
    steps = float(random.choice([window_slots, 1, 0.37, 2.5, window_slots + 1])) if stride is None else stride
    table = TableTruth(start, window, steps * base)
    for number in range(count):
        every = base if number == 0 else base / float(random.choice([1, 2, 4]))
        share = float(random.choice([0, 0, 0.0005, 0.005, -0.005, 0.009])) if drift is None else drift
        interval = every * (1 + share)
        phase = float(random.random() * every)
        amount = (float(random.choice([0.0, 0.003, 0.1, 0.3, most])) if jitter is None else jitter) * every
        total = int(length * base / every)
        slots = np.arange(total)
        if not whole:
            slots = slots[random.random(total) > float(random.choice([0.0, 0.1]))]
        if not whole and random.random() < 0.3 and count == 1:  # a pause that ends a part
            middle = int(len(slots) * random.uniform(0.4, 0.6))
            slots[middle:] += int(window_slots * random.uniform(1.5, 8)) + 3
        times = np.round(start + phase + interval * slots + random.uniform(-amount, amount, len(slots)), 6)
        keep = np.concatenate([[True], np.diff(times) > 0])
        slots, times = slots[keep], times[keep]
        if number and random.random() < 0.3:  # columns of the same rows, some of which are empty
            first = table.streams[0]
            keep = random.random(len(first.times)) > (0 if whole else 0.15)
            every, interval, phase = first.every, first.interval, first.phase - start
            slots, times = first.slots[keep], first.times[keep]
        channels = int(random.integers(1, 3))
        cells = np.stack([slots + 1000 * channel for channel in range(channels)], axis=1).astype(float)
        if not whole:
            gone = random.random(cells.shape) < float(random.choice([0.0, 0.1]))
            gone[gone.all(axis=1), 0] = False
            cells[gone] = np.nan
        steps_ahead = int(random.integers(1, 8)) if number == 0 and random.random() < 0.6 else 0
        table.streams.append(
            StreamTruth("abc"[number], every, interval, start + phase, times, slots, cells, steps_ahead)
        )
    return table


# ------------------------------------------------------------------------------------------------ what windows contain

NEAR = 0.1
"""Both answers are right if a boundary is nearer than this share of an interval."""


@dataclass
class Window:
    """A window that a table must have. `first` are the accepted first slots of each stream."""

    begin: float
    first: dict[str, list[int]]
    is_optional: bool
    """Whether the window may also be missing, because it ends near the end of its part."""


def expected_windows(table: TableTruth) -> list[Window]:
    """The windows of a table of regular streams, in the order of time."""
    union = np.unique(np.concatenate([stream.times for stream in table.streams]))
    breaks = np.flatnonzero(np.diff(union) > table.window * (1 + 1e-6)) + 1
    windows = []
    for part in np.split(union, breaks):
        inside = {s.name: (s.times >= part[0]) & (s.times <= part[-1]) for s in table.streams}
        present = [stream for stream in table.streams if inside[stream.name].any()]
        begin = min(float(s.true_time(s.slots[inside[s.name]][0])) for s in present)
        ends = [
            float(s.true_time(s.slots[inside[s.name]][-1])) + s.every
            for s in present if s.times[inside[s.name]][-1] == part[-1]
        ]  # fmt: skip
        near = NEAR * max(stream.every for stream in table.streams)
        number, error = 0, 1.5 * near  # at the end of a part, the error of the line's slope is added
        while (start := begin + number * table.stride) + table.window <= max(ends) + error:
            first = {stream.name: first_slots(stream, start, near) for stream in table.streams}
            late = start + table.window > max(ends) - error
            windows.append(Window(start, first, late))
            number += 1
    return windows


def first_slots(stream: StreamTruth, begin: float, near: float) -> list[int]:
    """The first slot whose time is at least the begin of a window minus half an interval; near a boundary, both."""
    exact = (begin - stream.every / 2 - stream.phase) / stream.interval
    nearest = round(exact)
    is_near = abs(exact - nearest) * stream.interval < near
    return [nearest, nearest + 1] if is_near else [int(np.ceil(exact))]


def grid_of(stream: StreamTruth, first: int, count: int) -> np.ndarray:
    """The cells of `count` slots; NaN where a row or a cell is missing."""
    grid = np.full((count, stream.cells.shape[1]), np.nan)
    inside = (stream.slots >= first) & (stream.slots < first + count)
    grid[stream.slots[inside] - first] = stream.cells[inside]
    return grid


def same(one: np.ndarray | None, other: np.ndarray) -> bool:
    """Whether a grid of the program is that of the oracle; None: no measurement."""
    if one is None:
        return bool(np.isnan(other).all())
    return one.shape == other.shape and np.array_equal(one, other, equal_nan=True)


def problems(table: TableTruth, samples) -> list[str]:
    """Compares all windows of the program with the oracle. Returns a line for each difference."""
    differences, windows = [], expected_windows(table)
    slots = {stream.name: round(table.window / stream.every) for stream in table.streams}
    filled = [
        window for window in windows
        if any(
            not np.isnan(grid_of(stream, first, slots[stream.name])).all()
            for stream in table.streams for first in window.first[stream.name]
        )
    ]  # fmt: skip
    starts, begins = samples.starts, np.array([window.begin for window in filled])
    used = set()
    for number, start in enumerate(starts.tolist()):
        nearest = int(np.abs(begins - start).argmin())
        window = filled[nearest]
        used.add(nearest)
        row = samples[number]
        for stream in table.streams:
            value = row[stream.name]
            past = None if value is None else value["values"]
            ok = any(
                same(past, grid_of(stream, first, slots[stream.name]))
                and (not stream.steps or same(row[f"{stream.name}_future"],
                                              grid_of(stream, first + slots[stream.name], stream.steps)))
                for first in window.first[stream.name]
            )  # fmt: skip
            if not ok:
                differences.append(
                    f"window {number} from {start!r} (oracle: {window.begin!r}), stream {stream.name}: "
                    f"{None if past is None else past[:, 0].tolist()} instead of slots {window.first[stream.name]}"
                )
    missing = [w for n, w in enumerate(filled) if n not in used and not w.is_optional]
    differences += [f"no window from {window.begin!r}" for window in missing]
    if len(starts) > len(filled):
        differences.append(f"{len(starts)} windows instead of {len(filled)}")
    return differences
