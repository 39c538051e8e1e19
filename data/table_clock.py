"""The clocks of a table: which slot of an evenly spaced stream each measurement belongs to.

A logger writes measurements at almost equal intervals, with jitter, with a clock that is slightly fast or slow, with
missing rows and with pauses. A line T(k) = phase + k * interval is fitted to the times of the rows between two pauses.
The measurement in a row belongs to the slot k = round((t - phase) / interval), so that jitter moves no measurement into
the slot of another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ..files.reading import DataError

TOLERANCE = 1e-6
"""Two times that differ by less than this share of an interval are equal."""
FASTEST = 0.75
"""A stream whose median step is less than this share of the interval in the YAML is down-sampled."""
DIFFERENCE = 0.01
"""The largest relative difference of the interval of a line from that in the YAML."""
NOTED = 0.001
"""The relative difference of the interval above which a notice says so."""
LATE = 0.48
"""A row that is further from its line, in intervals, is counted: it may belong to the next slot."""
MOST_WRONG = 0.01
"""The largest share of rows that share a slot with another row or are late; a table with more is refused."""


class Line(NamedTuple):
    """The clock of a stream between two pauses. The time of slot k is `origin + phase + k * interval` in seconds."""

    first: int
    """The rows of the stream that belong to the line are `first` to `end` - 1."""
    end: int
    start: float
    """The time of its first measurement."""
    stop: float
    """The time of its last measurement."""
    origin: float
    """The time of the first row of the part of the table. The phase is relative to it, since seconds since 1970 are too
    large for exact differences."""
    phase: float
    interval: float
    largest: float
    """The largest distance of a measurement from its slot in seconds."""

    def number(self, time: float | Float[np.ndarray, "n"], origin: float = 0.0) -> float | Float[np.ndarray, "n"]:
        """Returns the slots, as fractions, of times relative to `origin`."""
        return ((origin - self.origin) + time - self.phase) / self.interval

    def relative(self, number: Int[np.ndarray, "n"] | int | np.integer) -> Float[np.ndarray, "n"] | float:
        """Returns the times of slots in seconds, relative to the origin."""
        return self.phase + number * self.interval

    def time(self, number: Int[np.ndarray, "n"] | int | np.integer) -> Float[np.ndarray, "n"] | float:
        """Returns the times of slots in seconds."""
        return self.origin + self.relative(number)


@dataclass(frozen=True)
class Clock:
    """The clock of one stream with an interval. `every` is the interval in the YAML."""

    every: float
    step: float
    """The median time between two measurements."""
    lines: tuple[Line, ...]
    """The lines, in the order of time; empty if the stream is down-sampled (the last value in each slot counts)."""
    rows: int
    """The number of measurements."""
    repeated: int
    """The number of measurements that are ignored, because a later one belongs to the same slot."""
    late: int
    """The number of measurements that are more than LATE intervals from their slots."""

    @property
    def is_regular(self) -> bool:
        """Whether each slot has at most one measurement."""
        return bool(self.lines)

    @property
    def interval(self) -> float:
        """The mean interval of the lines, weighted by their numbers of measurements; `every` without lines."""
        sizes = [line.end - line.first for line in self.lines]
        return float(np.average([line.interval for line in self.lines], weights=sizes)) if self.lines else self.every

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    @cached_property
    def starts(self) -> Float[np.ndarray, "l"]:
        """The times of the first measurement of each line."""
        return np.array([line.start for line in self.lines])

    @cached_property
    def stops(self) -> Float[np.ndarray, "l"]:
        """The times of the last measurement of each line."""
        return np.array([line.stop for line in self.lines])

    @cached_property
    def ends(self) -> Int[np.ndarray, "l"]:
        """The end of the rows of each line."""
        return np.array([line.end for line in self.lines])

    def line_of(self, row: int) -> Line:
        """Returns the line of the measurement in a row of the stream."""
        return self.lines[int(np.searchsorted(self.ends, row, side="right"))]

    def lines_within(self, start: float, end: float) -> tuple[Line, ...]:
        """Returns the lines that begin between two times, including both."""
        return self.lines[np.searchsorted(self.starts, start) : np.searchsorted(self.starts, end, side="right")]

    def lines_between(self, start: float, end: float) -> tuple[Line, ...]:
        """Returns the lines with measurements between two times, with a margin of two intervals. If there are none,
        returns the next line, or the last line."""
        low = min(int(np.searchsorted(self.stops, start - 2 * self.every)), len(self.lines) - 1)
        high = int(np.searchsorted(self.starts, end + 2 * self.every, side="right"))
        return self.lines[low : max(high, low + 1)]

    def line_at(self, times: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Returns the index of the line at each time: the last one that has begun, with a margin of half an interval,
        or the first one."""
        return np.maximum(np.searchsorted(self.starts, times + self.every / 2, side="right") - 1, 0)

    def numbers(self, times: Float[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Returns the slot of each measurement on its line. `times` are the times of all measurements."""
        parts = [np.rint(line.number(times[line.first : line.end])) for line in self.lines]
        return np.concatenate(parts).astype(np.int64)

    def check(self, name: str, path: object) -> None:
        """Raises DataError if too many measurements of the stream do not fit its lines."""
        if self.repeated + self.late > MOST_WRONG * self.rows:
            raise DataError(
                f"{path}: the measurements of stream {name!r} are not {self.every:.7g} s apart: "
                f"{self.repeated + self.late:,} of {self.rows:,} do not fit, and the median interval is "
                f"{self.step:.7g} s. Set `every` to the interval of the sensor, or remove it: a window then has the "
                "measurements with their times"
            )

    def notices(self, name: str) -> Iterator[str]:
        """Yields sentences about measurements that do not fit, and about an interval that differs from the YAML."""
        if self.repeated or self.late:
            yield (
                f"stream {name!r}: {self.repeated:,} of {self.rows:,} measurements are ignored, because a later one is "
                f"in the same slot; {self.late:,} are almost half an interval from their slots"
            )
        if abs(self.interval / self.every - 1) > NOTED:
            yield f"stream {name!r}: its measurements are {self.interval:.7g} s apart instead of {self.every:.7g} s"


def parts_of_times(times: Float[np.ndarray, "n"], longest: float) -> list[tuple[int, int]]:
    """Returns (first, end) for the rows of each part of a table. A part ends at a pause of more than `longest`
    seconds."""
    breaks = (np.flatnonzero(np.diff(times) > longest * (1 + TOLERANCE)) + 1).tolist()
    return list(zip([0, *breaks], [*breaks, len(times)], strict=True))


def median_step(times: Float[np.ndarray, "n"]) -> float:
    """Returns the median time between two measurements; 0 for a single one."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def clock_of(times: Float[np.ndarray, "n"], every: float, window: float, origins: Float[np.ndarray, "p"]) -> Clock:
    """Returns the clock of a stream with measurements at `times`. `every` is the interval in the YAML, `window` the
    length of a window, and `origins` are the times at which the parts of the table begin."""
    step, lines, repeated, late = median_step(times), [], 0, 0
    is_regular = len(times) == 1 or (len(times) > 1 and step >= FASTEST * every)
    for first, end in parts_of_times(times, window) if is_regular else ():
        origin = float(origins[np.searchsorted(origins, times[first], side="right") - 1])
        fit = fitted_line(times[first:end] - times[first], every)
        start, stop = float(times[first]), float(times[end - 1])
        line = Line(first, end, start, stop, origin, start - origin + fit.phase, fit.interval, fit.largest)
        numbers = line.number(times[first:end])
        lines.append(line)
        repeated += int((np.diff(np.rint(numbers)) == 0).sum())
        late += int((np.abs(numbers - np.rint(numbers)) > LATE).sum())
    return Clock(every, step, tuple(lines), len(times), repeated, late)


INSPECTED, CHECKED = 3000, 100_000
"""The numbers of measurements from which an interval is estimated, and with which it is checked."""
TRIED = sorted(np.arange(-0.12, 0.051, 0.01).tolist(), key=abs)
"""Relative differences from the median interval that are tried: jitter and missing rows change the median."""


def measured_interval(times: Float[np.ndarray, "n"], pause: int) -> float | None:
    """Returns the interval of a stream, with as few digits as the times allow, or None if the stream is not evenly
    spaced. A time without measurements of more than `pause` intervals is a pause."""
    step = median_step(times[:INSPECTED])
    if not step:
        return None
    best = None
    for share in TRIED:
        clock = clock_from(times[:INSPECTED], step * (1 + share), pause)
        best = min(best or clock, clock, key=lambda each: each.repeated + each.late)
        if not best.repeated + best.late:
            break
    most = min(LATE, max(line.largest / line.interval for line in best.lines) + 0.05) if best.lines else LATE
    candidates = (float(f"{best.interval:.{digits}g}") for digits in range(1, 16))
    for every in (each for each in candidates if abs(each / best.interval - 1) < 2 * DIFFERENCE):
        if fits_exactly(times[:CHECKED], every, pause, most):
            return every
    clock = clock_from(times[:CHECKED], best.interval, pause)
    return clock.interval if clock.repeated + clock.late <= MOST_WRONG * clock.rows else None


def clock_from(times: Float[np.ndarray, "n"], every: float, pause: int) -> Clock:
    """Returns the clock of the only stream of a table."""
    origins = times[[first for first, _ in parts_of_times(times, pause * every)]]
    return clock_of(times, every, pause * every, origins)


def fits_exactly(times: Float[np.ndarray, "n"], every: float, pause: int, most: float) -> bool:
    """Returns whether the times are at most `most` intervals from lines with exactly this interval."""
    for first, end in parts_of_times(times, pause * every):
        part = times[first:end] - times[first]
        phase, half = best_phase(part, every)
        if half > most * every or (np.diff(np.rint((part - phase) / every)) < 1).any():
            return False
    return True


# --------------------------------------------------------------------------------------------------------- one line

FIRST_ROWS = 50
"""The number of rows to which the first candidates are fitted. Their number is then doubled."""
SEARCHED = 3200
"""The number of rows up to which many candidates are compared; later, the line is known almost exactly."""
KEPT = 4
"""The number of candidates that are kept, for each criterion."""
GOOD = 0.46
"""A largest deviation, in intervals, with which the neighbourhood of the candidates is not searched further."""


class Candidate(NamedTuple):
    """A line through the first rows. The better of two candidates is the smaller one."""

    wrong: int
    """The number of rows in a slot that is already occupied, and of rows that are late."""
    largest: float
    """The largest distance of a row from its slot in seconds."""
    phase: float
    interval: float


def fitted_line(times: Float[np.ndarray, "n"], every: float) -> Candidate:
    """Returns the line T(k) = phase + k * interval for times that increase from 0. Of all lines whose interval differs
    from `every` by at most DIFFERENCE, it is one with the fewest rows that are late or in a slot that is already
    occupied, and among these one with the smallest largest distance of a row from its slot."""
    phase, half = best_phase(times, every)
    if half <= 0.25 * every and scores(times, np.array([phase]), np.array([every]))[0][0] == 0:
        return centred(times, phase, every, every)  # no other line can be better
    count = min(FIRST_ROWS, len(times))
    span = max(times[count - 1] / every, 1)
    phases = np.linspace(0, every, 50, endpoint=False)
    shares = np.linspace(-DIFFERENCE, DIFFERENCE, odd(2 * DIFFERENCE * span / 0.03))
    starts = best_of(times[:count], *grid(phases, every * (1 + shares)))
    while True:
        rows = times[:count]
        found = {fit(rows, *start, every) for start in starts for fit in (centred, least_squares)}
        best = min(found)
        if count == len(times) or best.wrong > MOST_WRONG * len(times):  # the table is refused in any case
            break
        before, count = max(rows[-1] / every, 1), min(2 * count, len(times))
        starts = extended(times[:count], found, before, every)
    return min(centred(times, each.phase, each.interval, every) for each in found)


def extended(
    times: Float[np.ndarray, "n"], candidates: set[Candidate], before: float, every: float
) -> list[tuple[float, float]]:
    """Returns the best lines in the neighbourhood of candidates that were fitted to `before` intervals, for more
    times."""
    span, starts = times[-1] / every, []
    for width in (0.15, 0.5) if len(times) <= SEARCHED else (0.04,):  # in intervals, at the end of the fitted rows
        phases, intervals = grid(
            np.linspace(-width, width, odd(width / 0.025)) * every,
            np.linspace(-width, width, odd(2 * width * span / before / 0.05)) * every / before,
        )
        around = [(phases + each.phase, intervals + each.interval) for each in candidates]
        limits = (1 - DIFFERENCE) * every, (1 + DIFFERENCE) * every
        starts = best_of(times, *(np.concatenate(part) for part in zip(*around, strict=True)), limits)
        wrong, largest, _ = scores(times, *map(np.array, zip(*starts, strict=True)))
        if wrong.min() == 0 and largest[wrong == 0].min() <= GOOD * every:
            break
    return starts


def odd(number: float) -> int:
    """Returns an odd number that is at least `number` and at least 3."""
    return max(3, int(np.ceil(number)) | 1)


def grid(phases: Float[np.ndarray, "a"], intervals: Float[np.ndarray, "b"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns all pairs as two arrays."""
    return np.repeat(phases, len(intervals)), np.tile(intervals, len(phases))


def scores(
    times: Float[np.ndarray, "n"], phases: Float[np.ndarray, "c"], intervals: Float[np.ndarray, "c"]
) -> tuple[Int[np.ndarray, "c"], Float[np.ndarray, "c"], Float[np.ndarray, "c"]]:
    """Returns for each line the number of rows that are late or in occupied slots, and the largest and the sum of the
    squared distances of the rows from their slots. The times increase, so rows in one slot follow each other."""
    wrong, largest, squares = np.empty(len(phases), int), np.empty(len(phases)), np.empty(len(phases))
    size = max(1, 2**20 // len(times))
    for first in range(0, len(phases), size):
        part = slice(first, first + size)
        phase, interval = phases[part, None], intervals[part, None]
        numbers = np.rint((times - phase) / interval)
        distances = np.abs(numbers * interval + phase - times)
        wrong[part] = (np.diff(numbers, axis=1) == 0).sum(1) + (distances > LATE * interval).sum(1)
        largest[part], squares[part] = distances.max(1), np.square(distances).sum(1)
    return wrong, largest, squares


def best_of(
    times: Float[np.ndarray, "n"], phases: Float[np.ndarray, "c"], intervals: Float[np.ndarray, "c"],
    limits: tuple[float, float] = (0.0, np.inf),
) -> list[tuple[float, float]]:  # fmt: skip
    """Returns KEPT lines with different slots of the rows, by the largest distance, and KEPT by the mean square. The
    second ones are right if few rows have much jitter; with more rows, the first criterion then chooses them, too."""
    intervals = intervals.clip(*limits)
    wrong, largest, squares = scores(times, phases, intervals)
    chosen: dict[int, None] = {}
    for order in (np.lexsort([largest, wrong]), np.lexsort([squares, wrong])):
        seen = set()
        for number in order[:100].tolist():
            steps = np.diff(np.rint((times - phases[number]) / intervals[number])).tobytes()
            if steps not in seen:
                seen.add(steps)
                chosen.setdefault(number)
            if len(seen) == KEPT:
                break
    return [(float(phases[number]), float(intervals[number])) for number in chosen]


def best_phase(times: Float[np.ndarray, "n"], every: float) -> tuple[float, float]:
    """Returns (phase, largest distance of a row from its slot) of the best line with the interval `every`: the middle
    of the smallest arc that contains all times modulo `every`."""
    turns = np.sort(np.mod(times / every, 1))
    gaps = np.diff(turns, append=turns[0] + 1)
    widest = int(gaps.argmax())
    return float((turns[widest] + gaps[widest] / 2 + 0.5) % 1 * every), float((1 - gaps[widest]) / 2 * every)


def judged(times: Float[np.ndarray, "n"], phase: float, interval: float) -> Candidate:
    """Returns a line with its scores."""
    wrong, largest, _ = scores(times, np.array([phase]), np.array([interval]))
    return Candidate(int(wrong[0]), float(largest[0]), float(phase), float(interval))


def centred(times: Float[np.ndarray, "n"], phase: float, interval: float, every: float) -> Candidate:
    """Returns the line with the smallest largest distance for the slots that a line gives to the rows (repeated, since
    the new line may give other slots). The width of the strip that contains all points (k, t) is a convex function of
    its slope."""
    best = judged(times, phase, interval)
    for _ in range(8):
        numbers = np.rint((times - best.phase) / best.interval)
        low, high = (1 - DIFFERENCE) * every, (1 + DIFFERENCE) * every
        for _ in range(50):
            slope = (low + high) / 2
            rest = times - slope * numbers
            top, bottom = numbers[rest.argmax()], numbers[rest.argmin()]
            if top == bottom:
                break
            low, high = (slope, high) if top > bottom else (low, slope)
        line = judged(times, (rest.max() + rest.min()) / 2, slope)
        if (line.wrong, line.largest) >= (best.wrong, best.largest - 1e-12 * every):
            break
        best = line
    return best


def least_squares(times: Float[np.ndarray, "n"], phase: float, interval: float, every: float) -> Candidate:
    """Returns the line with the smallest sum of squared distances for the slots that a line gives to the rows,
    repeated."""
    for _ in range(4):
        numbers = np.rint((times - phase) / interval)
        centre = numbers - numbers.mean()
        if not centre.any():
            break
        slope = float((centre * times).sum() / np.square(centre).sum())
        interval = float(np.clip(slope, (1 - DIFFERENCE) * every, (1 + DIFFERENCE) * every))
        phase = float(times.mean() - interval * numbers.mean())
    return judged(times, phase, interval)
