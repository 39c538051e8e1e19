"""Metrics of measured runs, formatted for the tables of the README."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import read_results

README = Path(__file__).parents[2] / "README.md"


SINCE = "2026-11-26T17:34"
"""Tables contain only rows that were measured at or after this time. Earlier rows stay in the files: before it, initial
values depended on the order of the parameters, now they depend on the seed and the name of each parameter."""


MISSING = "not measured with the current code"


Row = dict[str, Any]


def newest(rows: Sequence[Row], key: str = "seed") -> list[Row]:
    """Returns the newest row of each seed."""
    return list({row[key]: row for row in sorted(rows, key=lambda row: row["measured"])}.values())


def mean_and_std(values: Sequence[float], digits: int) -> str:
    """Formats one value, or the mean ± standard deviation of several."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def seeds(rows: Sequence[Row]) -> str:
    """Names the seeds of rows: `seeds 0, 1`."""
    numbers = sorted({int(row["seed"]) for row in rows})
    return f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(map(str, numbers))}"


def measured(name: str) -> list[Row]:
    """Returns the rows of the measurement `reached_NAME` since `SINCE`."""
    return [row for row in read_results(f"reached_{name}") if row["measured"] >= SINCE]


def figure(name: str, metric: str, digits: int = 3, words: str = "") -> tuple[str, str]:
    """Returns a metric of the measurement `reached_NAME` over the newest row of each seed, and the names of the seeds;
    two empty strings if it was not measured."""
    rows = newest([row for row in measured(name) if metric in row])
    return (f"{words}{metric} {mean_and_std([row[metric] for row in rows], digits)}", seeds(rows)) if rows else ("", "")


def joined(figures: Sequence[tuple[str, str]]) -> str:
    """Joins (text, seeds) pairs into one line that names the seeds once after all consecutive texts that share them.

    >>> joined([("a 1", "seeds 0, 1"), ("b 2", "seeds 0, 1"), ("", ""), ("c 3", "seed 0")])
    'a 1; b 2 (seeds 0, 1); c 3 (seed 0)'
    """
    groups = itertools.groupby([figure for figure in figures if figure[0]], key=lambda figure: figure[1])
    return "; ".join(f"{'; '.join(text for text, _ in group)} ({which})" for which, group in groups)


def seconds(name: str) -> str:
    """Formats the training time of a measurement in seconds, as a range over the seeds, with the number of threads."""
    rows = newest(measured(name))
    if not rows:
        return ""
    values = [row["seconds"] for row in rows]
    threads = {row.get("threads") for row in rows} - {None, 0}
    lowest, highest = f"{min(values):,.0f}", f"{max(values):,.0f}"
    span = lowest if lowest == highest else f"{lowest} to {highest}"
    return span + (f" ({'one thread' if threads == {1} else f'{max(threads)} threads'})" if threads else "")
