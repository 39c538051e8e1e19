"""Two programs timed in turns: the same work, in one process, each as often first as second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds_of(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def timed_pairs(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> list[tuple[float, float]]:
    """Seconds of (ours, theirs) in so many pairs, of which every second one has ours first. Both run once
    beforehand."""
    theirs()
    ours()
    found = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        seconds = {first: seconds_of(first), second: seconds_of(second)}
        found.append((seconds[ours], seconds[theirs]))
    return found


def figures(pairs: list[tuple[float, float]], peer: str) -> dict[str, Any]:
    """One row: medians of both, and how many times faster ours is: median, 10th and 90th percentile, and the
    median by who came first."""
    ratios = [theirs / ours for ours, theirs in pairs]
    low, high = (sorted(ratios)[round(share * (len(ratios) - 1))] for share in (0.1, 0.9))
    return {
        "peer": peer, "pairs": len(pairs), "ms": 1000 * statistics.median(ours for ours, _ in pairs),
        "peer_ms": 1000 * statistics.median(theirs for _, theirs in pairs), "ratio": statistics.median(ratios),
        "ratio_p10": low, "ratio_p90": high, "ratio_ours_first": statistics.median(ratios[1::2]),
        "ratio_theirs_first": statistics.median(ratios[::2]),
    }  # fmt: skip
