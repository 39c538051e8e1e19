"""Figures of measured runs, as the tables of the README tell them."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import read_results

README = Path(__file__).parents[2] / "README.md"


SINCE = "2026-11-26T17:34"
"""Rows of this minute and later are of the code as it stands; earlier ones stay in the files and out of the tables:
until then initial values were drawn in the order of parameters, not by seed and name."""


MISSING = "not measured on this code yet"


Row = dict[str, Any]


def newest(rows: Sequence[Row], key: str = "seed") -> list[Row]:
    """Of each seed the newest row."""
    return list({row[key]: row for row in sorted(rows, key=lambda row: row["measured"])}.values())


def told(values: Sequence[float], digits: int) -> str:
    """One value, or the mean of several and their standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def seeds(rows: Sequence[Row]) -> str:
    """Which seeds rows are of."""
    numbers = sorted({int(row["seed"]) for row in rows})
    return f"seed {numbers[0]}" if len(numbers) == 1 else f"seeds {', '.join(map(str, numbers))}"


def measured(name: str) -> list[Row]:
    """The rows of a measurement, `reached_NAME`, that are of the code as it stands."""
    return [row for row in read_results(f"reached_{name}") if row["measured"] >= SINCE]


def figure(name: str, metric: str, digits: int = 3, words: str = "") -> tuple[str, str]:
    """A metric of a measurement, `reached_NAME`, over the newest row of each seed, and which seeds these are; nothing
    where it was not measured."""
    rows = newest([row for row in measured(name) if metric in row])
    return (f"{words}{metric} {told([row[metric] for row in rows], digits)}", seeds(rows)) if rows else ("", "")


def joined(figures: Sequence[tuple[str, str]]) -> str:
    """Figures in one line; behind those of the same seeds these are said once.

    >>> joined([("a 1", "seeds 0, 1"), ("b 2", "seeds 0, 1"), ("", ""), ("c 3", "seed 0")])
    'a 1; b 2 (seeds 0, 1); c 3 (seed 0)'
    """
    alike = itertools.groupby([each for each in figures if each[0]], key=lambda each: each[1])
    return "; ".join(f"{'; '.join(text for text, _ in group)} ({which})" for which, group in alike)


def seconds(name: str) -> str:
    """How long a run took: training alone."""
    rows = newest(measured(name))
    if not rows:
        return ""
    values = [row["seconds"] for row in rows]
    threads = {row.get("threads") for row in rows} - {None, 0}
    lowest, highest = f"{min(values):,.0f}", f"{max(values):,.0f}"
    span = lowest if lowest == highest else f"{lowest} to {highest}"
    return span + (f" ({'one thread' if threads == {1} else f'{max(threads)} threads'})" if threads else "")
