"""The streams, labels and durations of the data set `table`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from typing import Literal

UNITS = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
"""The units of durations, in seconds."""
FUTURE = "_future"
"""The end of the name of a column with the measurements of a stream after the window."""
DURATION = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?)\s*([a-z]*)\s*")
WHOLE = 1e-6
"""A number of intervals that differs from an integer by less than this share is this integer."""


def exact_seconds(duration: str | float, name: str) -> Fraction:
    """Returns a duration in seconds: 1/4 for "250 ms", 7200 for "2 h", 5 for 5 or "5". Raises ValueError for other
    texts, and if the duration is not more than 0."""
    match = DURATION.fullmatch(str(duration))
    if not match or match[2] not in ("", *UNITS):
        raise ValueError(f"{name} must be a number of seconds, or a number with {', '.join(UNITS)}, not {duration!r}")
    seconds = Fraction(match[1]) * UNITS.get(match[2], Fraction(1))
    if not 0 < seconds < 10**12:
        raise ValueError(f"{name} must be more than 0 and less than 1e12 seconds, not {duration!r}")
    return seconds


def seconds_of(duration: str | float, name: str) -> float:
    """Returns a duration in seconds, like `exact_seconds`."""
    return float(exact_seconds(duration, name))


def duration(seconds: float) -> str:
    """Returns a number of seconds as a text that `seconds_of` reads, in the largest unit in which it has at most one
    decimal: `5 s`, `250 ms`, `1.5 min`, `30 h`."""
    sizes = (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))
    for unit, size in sizes:
        if seconds >= size and abs(seconds / size - round(seconds / size, 1)) < 1e-9:
            return f"{seconds / size:.10g} {unit}"
    return f"{seconds * 1000:.10g} ms"


@dataclass(frozen=True, kw_only=True)
class TableStream:
    """The channels of one sensor, which are the `columns` of the table. `rate` is the number of measurements per second
    in a window, or `every` the time between two of them (`1 h`): each window then has the same number of measurements,
    and NaN where one is missing. null: a window has the measurements of the table and their times.

    The table may have more measurements than `rate` or `every`: then the last one in each interval counts. Otherwise,
    the measurements may be early or late by almost half an interval, and the clock may be fast or slow by 1 %: a line
    is fitted to the times between two pauses, and each measurement belongs to the nearest slot of this line.

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
    def exact_interval(self) -> Fraction | None:
        """The time between two measurements in seconds; None: the times of the table."""
        if self.every is not None:
            return exact_seconds(self.every, "every")
        return None if self.rate is None else 1 / Fraction(str(self.rate))

    @cached_property
    def interval(self) -> float | None:
        """The time between two measurements in seconds; None: the times of the table."""
        return None if self.exact_interval is None else float(self.exact_interval)

    @cached_property
    def ahead(self) -> float:
        """The horizon in seconds; 0 without one."""
        return 0.0 if self.horizon is None else seconds_of(self.horizon, "horizon")

    @property
    def steps(self) -> int:
        """The number of measurements in the horizon; 0 without one."""
        return self.count(self.ahead) if self.ahead else 0

    def count(self, seconds: float) -> int:
        """Returns the number of measurements in a time, which is a multiple of the interval (see `check_multiples`)."""
        return max(1, round(seconds / self.interval))


@dataclass(frozen=True, kw_only=True)
class TableLabel:
    """The `column` whose value in a window is its label. `at`: the `first`, the `last` or the most frequent (`most`)
    value of the window. Missing values are not counted."""

    column: str
    at: Literal["first", "last", "most"] = "last"


def check_multiples(window: str | float, streams: Mapping[str, TableStream]) -> None:
    """Raises ValueError if the window, or the horizon of a stream, is no multiple of the interval of a stream, with the
    nearest possible values."""
    intervals = {name: stream.exact_interval for name, stream in streams.items() if stream.exact_interval is not None}
    for name, interval in intervals.items():
        if not is_multiple(exact_seconds(window, "window"), interval):
            possible = nearest_multiples(exact_seconds(window, "window"), intervals.values())
            raise ValueError(
                f"window: {window} is no multiple of the interval of stream {name!r}, {duration(float(interval))}"
                + (f"; possible: {possible}" if possible else "")
            )
        horizon = streams[name].horizon
        if horizon is not None and not is_multiple(exact_seconds(horizon, "horizon"), interval):
            possible = nearest_multiples(exact_seconds(horizon, "horizon"), [interval])
            raise ValueError(
                f"streams.{name}.horizon: {horizon} is no multiple of its interval, {duration(float(interval))}; "
                f"possible: {possible}"
            )


def is_multiple(seconds: Fraction, interval: Fraction) -> bool:
    """Returns whether a time is a positive integer number of intervals."""
    count = seconds / interval
    return round(count) > 0 and abs(count - round(count)) <= WHOLE * count


def nearest_multiples(seconds: Fraction, intervals: Iterable[Fraction]) -> str:
    """Returns the multiples of all intervals below and above a time, as text; empty if there is none near it."""
    common = reduce(least_common_multiple, intervals)
    below = seconds // common
    near = [count * common for count in (below, below + 1) if count and count * common <= 2 * max(seconds, common)]
    return " or ".join(duration(float(each)) for each in near if common <= 2 * seconds or each == common)


def least_common_multiple(one: Fraction, other: Fraction) -> Fraction:
    """Returns the smallest number that is an integer multiple of both."""
    return Fraction(math.lcm(one.numerator * other.denominator, other.numerator * one.denominator),
                    one.denominator * other.denominator)  # fmt: skip
