"""Times two programs that do the same work alternately in one process; each is first equally often."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds_of(run: Callable[[], object]) -> float:
    """Returns the seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def timed_pairs(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> list[tuple[float, float]]:
    """Returns the seconds (ours, theirs) of every pair of calls. Ours runs first in every second pair. Both run once
    before the first pair."""
    theirs()
    ours()
    times = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        seconds = {first: seconds_of(first), second: seconds_of(second)}
        times.append((seconds[ours], seconds[theirs]))
    return times


def figures(pairs: list[tuple[float, float]], peer: str) -> dict[str, Any]:
    """Returns one row: the median times of both and the speed-up of ours: median, 10th and 90th percentile, and the
    medians of the pairs in which ours or theirs runs first."""
    ratios = [theirs / ours for ours, theirs in pairs]
    low, high = (sorted(ratios)[round(share * (len(ratios) - 1))] for share in (0.1, 0.9))
    return {
        "peer": peer, "pairs": len(pairs), "ms": 1000 * statistics.median(ours for ours, _ in pairs),
        "peer_ms": 1000 * statistics.median(theirs for _, theirs in pairs), "ratio": statistics.median(ratios),
        "ratio_p10": low, "ratio_p90": high, "ratio_ours_first": statistics.median(ratios[1::2]),
        "ratio_theirs_first": statistics.median(ratios[::2]),
    }  # fmt: skip
