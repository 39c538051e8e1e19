"""A run of all tests of the tier `system` adds a row to `benchmarks/results/system.jsonl`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from results import write_results

START = time.monotonic()


def only(count: int, values: Iterable[Any]) -> list[Any]:
    """Values for `pytest.mark.parametrize`: the suite has the first `count` of them, the tier `system` the others."""
    values = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*value, marks=pytest.mark.system if n >= count else ()) for n, value in enumerate(values)]


def is_whole(config: pytest.Config) -> bool:
    """Whether this is a run of all tests of the tier: `pytest -m system`, without a path or a name."""
    chosen = config.option.markexpr == "system" and not config.option.keyword and not config.option.collectonly
    return chosen and config.args_source is not pytest.Config.ArgsSource.ARGS


def row_of(stats: dict[str, list[Any]], seconds: float) -> dict[str, Any]:
    """The number of passed, failed and skipped tests, the reasons for skipping, and the seconds.

    {"passed": 3, "failed": 0, "skipped": 1, "why_skipped": {"needs CHOPMIX_DATA": 1}, "seconds": 12.5}
    """
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", []))
    failed = len(stats.get("failed", [])) + len(stats.get("error", []))
    return {
        "passed": len(stats.get("passed", [])), "failed": failed, "skipped": reasons.total(),
        "why_skipped": dict(reasons), "seconds": round(seconds, 1),
    }  # fmt: skip


def record(reporter: Any, config: pytest.Config) -> None:
    """Add the row of this run, if it is a run of the complete tier; workers of pytest-xdist add no row."""
    if is_whole(config) and not hasattr(config, "workerinput"):
        write_results("system", [row_of(reporter.stats, time.monotonic() - START)])
