"""Streams (measurements over time), with a fixed rate or with an explicit time for each measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...files.reading import DataError, shown
from .files import as_tensor

LATEST = 1e6
"""The largest absolute time in seconds. Above this time float32 cannot distinguish times that are 0.1 s apart."""


class Clocked(NamedTuple):
    """A stream with a time for each measurement, read from `{"values": ..., "seconds": ...}`."""

    values: Tensor
    """The measurements, (times, ...)."""
    seconds: Float[Tensor, "t"]
    """The time of each measurement in seconds, strictly increasing."""
    interval = None  # not a field

    def __len__(self) -> int:
        return len(self.values)


class Spaced(NamedTuple):
    """A stream with a constant time between two measurements, read from `{"values": ..., "interval": 0.1}`. The first
    measurement is at 0 seconds."""

    values: Tensor
    """The measurements, (times, ...)."""
    interval: float
    """The time between two measurements in seconds."""
    seconds = None  # not a field

    def __len__(self) -> int:
        return len(self.values)


Stream = Tensor | Clocked | Spaced
"""Measurements (times, ...): a tensor without times (the YAML sets the rate, the first measurement is at 0 seconds), a
`Clocked` with times, or a `Spaced` with a constant interval."""


def split_clock(raw: Any) -> tuple[Any, Any]:
    """Returns (values, seconds) of a raw stream, without checks. If `raw` is not a mapping, returns (raw, None). If it
    has an `interval` instead of `seconds`, returns (values, interval), a float. Raises DataError if a mapping has no
    `values`, neither of the two, or an interval that is not a positive number."""
    if not isinstance(raw, Mapping):
        return raw, None
    interval = raw.get("interval")
    times = "seconds" if interval is None else "interval"
    if missing := [name for name in ("values", times) if raw.get(name) is None]:
        raise DataError(f"a stream with times needs 'values' and 'seconds' or 'interval'; {missing[0]!r} is missing")
    if interval is None:
        return raw["values"], raw["seconds"]
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 < interval < math.inf:
        raise DataError(f"the interval of a stream must be a positive number of seconds, not {shown(interval)}")
    return raw["values"], float(interval)


def with_clock(values: Tensor, seconds: Any) -> Stream:
    """Returns `values` with their times as a `Clocked`; as a `Spaced` if `seconds` is a float, the interval; only
    `values` if `seconds` is None. Raises DataError if the times are not numbers, do not increase strictly, differ in
    number from the values, or if the absolute value of a time exceeds LATEST."""
    if seconds is None:
        return values
    if isinstance(seconds, float):
        return Spaced(values, seconds)
    times = as_tensor(seconds, "seconds").flatten()
    if len(times) != len(values):
        raise DataError(f"there are {len(times)} seconds, but {len(values)} measurements")
    if not bool((times.abs() <= LATEST).all()):
        invalid = next(time for time in times.tolist() if not abs(time) <= LATEST)
        raise DataError(
            f"the times of a stream (seconds) must be between -{LATEST:,.0f} and {LATEST:,.0f}, not {invalid:g}"
        )
    steps = times.diff()
    if len(steps) and not bool((steps > 0).all()):
        at = int((steps <= 0).nonzero()[0, 0])
        raise DataError(
            f"seconds must increase: measurement {at + 1} (counted from 0) is at {times[at + 1]:g} s, the one before "
            "it at "
            f"{times[at]:g} s"
        )
    return Clocked(values, times)


def with_values(stream: Stream, values: Tensor) -> Stream:
    """Returns other measurements with the times of a stream."""
    _, seconds, interval = timing_of(stream)
    if seconds is not None:
        return Clocked(values, seconds)
    return values if interval is None else Spaced(values, interval)


def clock_of(stream: Stream, rate: float) -> tuple[Tensor, Float[Tensor, "t"]]:
    """Returns (measurements, times in seconds) of a stream. The times of a stream without times are 0, 1 / `rate`, 2 /
    `rate`, ..."""
    values, seconds, interval = timing_of(stream)
    if seconds is not None:
        return values, seconds
    numbers = torch.arange(len(stream), dtype=torch.float32)
    return values, numbers / rate if interval is None else numbers * interval


def timing_of(stream: Stream) -> tuple[Tensor, Float[Tensor, "t"] | None, float | None]:
    """Returns (measurements, times in seconds, interval in seconds) of a stream, as far as it contains them."""
    return (stream, None, None) if isinstance(stream, Tensor) else (stream.values, stream.seconds, stream.interval)
