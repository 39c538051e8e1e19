"""Figures of measured runs, as the tables of the README tell them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results import read_results

README = Path(__file__).parents[2] / "README.md"


SINCE = "2026-11-26"
"""Figures of this day and later are of the code as it stands; earlier ones are of the code before, which is said
beside them."""


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


def earlier(name: str) -> list[Row]:
    """Rows of the code before."""
    equal = [row for row in read_results(f"equal_steps_{name}") if row.get("what") == "chopmix"]
    return read_results(f"seeds_{name}") + equal


SOME = {
    ("quickstart", "val/exact_match"): 256,
    ("quickstart_no_scratchpad", "val/exact_match"): 256,
    ("arithmetic_speech", "val/exact_match"): 256,
    ("multi30k", "val/bleu"): 300,
    ("multi30k_2017", "val/bleu"): 300,
}
"""Metrics that rows of the code before have of so many samples instead of all."""


def figure(name: str, metric: str, digits: int = 3, before: str | None = None, words: str = "") -> str:
    """A metric of a measurement, `reached_NAME`; behind it what the code before reached, where not all seeds are
    measured again (`before`: under which name its rows are kept). Nothing where neither is there."""
    before = before or name
    now = newest([row for row in measured(name) if metric in row])
    then = newest([row for row in earlier(before) if metric in row])
    then = [row for row in then if row["seed"] not in {each["seed"] for each in now}]
    some = f"{SOME[before, metric]} samples, " if (before, metric) in SOME else ""
    parts = []
    if now:
        parts.append(f"{told([row[metric] for row in now], digits)} ({seeds(now)})")
    if then:
        parts.append(f"{told([row[metric] for row in then], digits)} ({some}{seeds(then)} of the code before)")
    return f"{words}{metric} {'; '.join(parts)}" if parts else ""


def seconds(name: str, before: str | None = None) -> str:
    """How long a run took: training alone."""
    rows = newest(measured(name)) or newest(earlier(before or name))
    if not rows:
        return ""
    values = [row["seconds"] for row in rows]
    threads = {row.get("threads") for row in rows} - {None, 0}
    lowest, highest = f"{min(values):,.0f}", f"{max(values):,.0f}"
    span = lowest if lowest == highest else f"{lowest} to {highest}"
    return span + (f" ({'one thread' if threads == {1} else f'{max(threads)} threads'})" if threads else "")
