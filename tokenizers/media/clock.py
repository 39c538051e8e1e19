"""Measurements over time: at a fixed rate, or each with a second of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ...files.reading import DataError
from .files import as_tensor

LATEST = 1e6
"""The furthest second from 0: beyond, float32 cannot tell two measurements of the same tenth of a second apart."""


class Clocked(NamedTuple):
    """A stream whose measurements have a clock: what `{"values": ..., "seconds": ...}` becomes when it is read."""

    values: Tensor
    """The measurements, (times, ...)."""
    seconds: Float[Tensor, "t"]
    """When each was taken, rising."""

    def __len__(self) -> int:
        return len(self.values)


Stream = Tensor | Clocked
"""Measurements (times, ...) at the rate that the YAML gives, the first at 0 seconds; or with a clock of their own."""


def split_clock(raw: Any) -> tuple[Any, Any]:
    """The values of a raw stream and their seconds, not yet looked at; None where it is no mapping: it has no clock.
    Raises DataError for a mapping without `values` or without `seconds`."""
    if not isinstance(raw, Mapping):
        return raw, None
    if missing := [name for name in ("values", "seconds") if raw.get(name) is None]:
        raise DataError(f"a stream with a clock has 'values' and 'seconds'; {missing[0]!r} is not there")
    return raw["values"], raw["seconds"]


def with_clock(values: Tensor, seconds: Any) -> Stream:
    """The stream of these measurements and seconds; without a clock where they are None. Raises DataError for a clock
    that does not rise, is of another length, or goes beyond LATEST."""
    if seconds is None:
        return values
    read = as_tensor(seconds, "the clock").flatten()
    if len(read) != len(values):
        raise DataError(f"the clock has {len(read)} seconds, but there are {len(values)} measurements")
    if not bool((read.abs() <= LATEST).all()):
        wrong = next(each for each in read.tolist() if not abs(each) <= LATEST)
        raise DataError(f"the clock shows {wrong:g}; seconds must lie between -{LATEST:,.0f} and {LATEST:,.0f}")
    steps = read.diff()
    if len(steps) and not bool((steps > 0).all()):
        at = int((steps <= 0).nonzero()[0, 0])
        raise DataError(
            f"the clock does not rise: measurement {at + 1} is at {read[at + 1]:g} s, the one before at {read[at]:g} s"
        )
    return Clocked(values, read)


def clock_of(stream: Stream, rate: float) -> tuple[Tensor, Float[Tensor, "t"]]:
    """The measurements of a stream and their seconds: those of its clock, else `rate` a second from 0 on."""
    if isinstance(stream, Clocked):
        return stream.values, stream.seconds
    return stream, torch.arange(len(stream), dtype=torch.float32) / rate
