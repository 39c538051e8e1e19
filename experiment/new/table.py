"""`chopmix new table`: a classifier of windows of measurements, or a forecast of the next measurements."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...data.table_clock import measured_interval, median_step
from ...data.table_files import check_increasing, column_names, parts_of, times_of
from ...data.table_streams import duration
from ...files.errors import UsageError
from .start import TARGETS, Start, advice, classes_line, classification, is_number, model_of, training_of

TIMES = ("time", "timestamp", "datetime", "date", "seconds", "t")
"""Names of columns that are probably the time."""
FLOAT32 = 3.4028235e38
"""The largest number in float32."""
MOST_ROWS = 200_000
"""The number of rows that are inspected, except for their times."""
SHARE = 0.15
"""The share of val and of test."""
DAY = 86400.0
"""The number of seconds in a day."""
MOST_CLASSES = 30
"""A column with more different values is not a column of classes."""


@dataclass(frozen=True)
class Found:
    """What was found in a table: the values of its first rows by column, the column of times, the number of rows, the
    time between two rows in seconds, the column of classes (if there is one), and the channels."""

    columns: Mapping[str, Sequence[Any]]
    time: str
    rows: int
    step: float
    """The time between two rows: the median, or the interval of an evenly spaced table."""
    label: str | None
    channels: list[str]
    unused: list[str]
    """Columns that are neither numbers, nor classes, nor the time."""
    regular: bool
    """Whether the rows are evenly spaced, perhaps with jitter and missing rows."""
    times: Sequence[float]
    """The times of all rows in seconds."""

    def most_rows(self, window: float) -> int:
        """Returns the largest number of rows in a time of `window` seconds."""
        times = np.asarray(self.times)
        return int((np.searchsorted(times, times + window * (1 - 1e-9)) - np.arange(len(times))).max())

    @property
    def period(self) -> int | None:
        """The number of rows in a day, or in a week of daily rows; None if there are fewer than 4 or more than 288, or
        fewer than ten periods."""
        rows = 7.0 if abs(self.step - DAY) < 60 else DAY / self.step
        period = round(rows)
        return period if abs(rows - period) < 1e-6 and 4 <= period <= 288 and 10 * period <= self.rows else None


def inspected(path: Path) -> Found:
    """Returns what is in a table. Raises DataError or UsageError if it cannot be read, or if it has no column of times
    or no channel."""
    names = column_names(path)
    columns = first_rows(path, names)
    time = next((name for name in names if name.lower() in TIMES), names[0])
    seconds = times_in(path, time)
    if len(seconds) < 2:
        raise UsageError(f"{path} has {len(seconds)} rows; at least two are needed")
    interval = measured_interval(seconds, default_rows(len(seconds)))
    numeric = [name for name in names if name != time and mostly_numbers(columns[name])]
    label = label_of(columns, numeric, [name for name in names if name not in (time, *numeric)])
    channels = [name for name in numeric if name != label]
    check_channels(path, columns, channels)
    return Found(
        columns=columns, time=time, rows=len(seconds), step=interval or median_step(seconds), label=label,
        channels=channels, unused=[name for name in names if name not in (time, label, *channels)],
        regular=interval is not None, times=seconds,
    )  # fmt: skip


def first_rows(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Returns the values of at least MOST_ROWS rows, or of all, by column."""
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for batch in parts_of(path, names[0], {}, names[1:]):
        for name in names:
            columns[name] += batch.column(name).to_pylist()
        if len(columns[names[0]]) > MOST_ROWS:
            break
    return columns


def label_of(columns: Mapping[str, Sequence[Any]], numeric: Sequence[str], others: Sequence[str]) -> str | None:
    """Returns the column of classes: the first one whose name says so, else the first one of texts; None: there is
    none."""
    texts = [name for name in others if 2 <= len(known(columns[name])) <= MOST_CLASSES]
    whole = [name for name in numeric if name.lower() in TARGETS and len(known(columns[name])) <= MOST_CLASSES]
    return next((name for name in (*texts, *whole) if name.lower() in TARGETS), texts[0] if texts else None)


def check_channels(path: Path, columns: Mapping[str, Sequence[Any]], channels: Sequence[str]) -> None:
    """Raises UsageError if there is no channel, or if one has numbers that do not fit into float32."""
    if not channels:
        raise UsageError(f"{path} has no column of numbers except the time; its columns are {', '.join(columns)}")
    for name in channels:
        largest = max(abs(float(value)) for value in columns[name] if value not in (None, ""))
        if math.isfinite(largest) and largest > FLOAT32:
            raise UsageError(f"{path}: the column {name!r} has {largest:g}, which does not fit into float32; scale it")


def times_in(path: Path, time: str) -> np.ndarray:
    """Returns the times of all rows in seconds. Raises DataError if they do not increase."""
    parts, rows, previous = [np.empty(0)], 0, -np.inf
    for batch in parts_of(path, time, {}, []):
        times = times_of(batch.column(time), time, path, rows)
        check_increasing(times, time, path, rows, previous)
        parts.append(times.seconds)
        rows += len(times.seconds)
        previous = times.seconds[-1] if len(times.seconds) else previous
    return np.concatenate(parts)


def table(path: Path, encoder: str | None = None) -> Start:
    """Returns the configuration for a table of measurements over time: it classifies windows if the table has a column
    of classes. Otherwise it forecasts the next measurements if the rows are evenly spaced in time, and else predicts
    the measurement after each one. Raises DataError or UsageError if the table cannot be read, or has no column of
    times or no channel."""
    found = inspected(path)
    streams = streams_of({name: found.columns[name] for name in found.channels}, found.step)
    plan = forecast_plan(found)
    rows = plan.rows if plan else default_rows(found.rows)
    every = int(np.clip(found.rows // 2000, 1, rows // 2))
    window, stride = rows * found.step, every * found.step
    samples = max(0, found.rows - rows) // every + 1
    target = max(streams, key=lambda name: streams[name][1])
    even = {"every": duration(found.step), "horizon": duration(plan.horizon * found.step)} if plan else {}
    dataset: dict[str, Any] = {
        "use": "table", "train": str(path), "time": found.time, "window": duration(window), "stride": duration(stride),
        "streams": {name: {"columns": columns, **(even if name == target else {})}
                    for name, (columns, _) in streams.items()},
    }  # fmt: skip
    if found.label:
        dataset["label"] = {"column": found.label, "at": "last"}
    inputs = {
        name: {"use": "sensor", "channels": dict.fromkeys(columns),
               **(plan.options if plan and name == target else {"position": None})}
        for name, (columns, _) in streams.items()
    }  # fmt: skip
    most = found.most_rows(window)
    tokens = sum((rows // plan.token if plan and name == target else int(np.ceil(most * share))) + 1
                 for name, (_, share) in streams.items())  # fmt: skip
    learned = learned_from(found, plan, target)
    windows = f"windows of {duration(window)}, a new one every {duration(stride)}: about {samples:,} samples"
    return Start(
        question=learned.question, inputs=inputs, tasks=learned.tasks, best=learned.best, samples=samples,
        has_baselines=learned.has_baselines,
        model=model_of(tokens + 1, samples, attention=learned.attention), training=training_of(int(samples * 0.7)),
        data={"dataset": dataset, "split": {"val": SHARE, "test": SHARE}},
        found=[*lines_about(found, len(streams)), windows, *learned.lines],
        comments={"data.split": "in the order of time, with a gap of one window"},
    )  # fmt: skip


def lines_about(found: Found, streams: int) -> list[str]:
    """Returns lines about the rows, channels and unused columns of a table."""
    rows = f"{found.rows:,} rows, one every {duration(found.step)}"
    reason = "in which not all values are numbers. Written as 0, 1, ..., it can be a channel"
    return [
        f"{rows}; {len(found.channels)} channels in {streams} stream(s)",
        *(f"not used: {name!r}, {reason}, with its number of values in `categories`" for name in found.unused),
    ]


class Learned(NamedTuple):
    """What a model learns from a table."""

    question: str
    tasks: dict[str, Any]
    best: str
    attention: str
    lines: Sequence[str] = ()
    has_baselines: bool = True
    """Whether simple models can predict the same."""


def learned_from(found: Found, plan: ForecastPlan | None, target: str) -> Learned:
    """Returns the task for a table: a classification, a forecast of the stream `target`, or its next measurement."""
    if found.label:
        counts = Counter(str(value) for value in found.columns[found.label] if value not in (None, ""))
        question = f"What is the {found.label} in a window of measurements?"
        lines = [classes_line(counts), *advice(counts)]
        return Learned(question, classification(counts, found.label), "val/accuracy", "same_sample", lines)
    if plan:
        tasks = {"next": {"use": "forecast", "target": f"{target}_future", "input": target}}
        command = f"`chopmix forecast RUN --horizon {plan.horizon} --output next.csv --picture`"
        question = f"What are the next {plan.horizon} measurements?"
        return Learned(question, tasks, "val/loss", "same_sample", [f"{command} forecasts from the last row"])
    tasks = {"next": {"use": "next_item", "target": target, "at": target}}
    question = "What are the next measurements?"
    return Learned(question, tasks, "val/loss", "same_sample & causal", has_baselines=False)


@dataclass(frozen=True)
class ForecastPlan:
    """The sizes of a forecast, all in rows: of a window, of the horizon, of a period (None: no period), of a token."""

    rows: int
    horizon: int
    period: int | None
    token: int

    @property
    def options(self) -> dict[str, Any]:
        """The options of the tokenizer."""
        return {"window": self.token, **({"period": self.period} if self.period else {}), "relative": True}


def forecast_plan(found: Found) -> ForecastPlan | None:
    """Returns the sizes of a forecast: a horizon of one period after three or two of them, if the table is long enough
    for three splits and the gaps between them, else half a default window after one. Returns None for a table with a
    column of classes, or whose rows are not evenly spaced."""
    if found.label or not found.regular:
        return None
    period, rows = found.period, default_rows(found.rows)
    fitting = [n for n in (3, 2) if period and SHARE * (found.rows - n * period) > 1.3 * (2 * n + 1) * period]
    period = period if fitting else None
    rows = fitting[0] * period if period else rows
    return ForecastPlan(rows, period or rows // 2, period, next(size for size in range(6, 0, -1) if rows % size == 0))


def default_rows(rows: int) -> int:
    """Returns the number of rows in a window of a table with `rows` rows."""
    return 32 if rows > 3000 else 8


def known(values: Iterable[Any]) -> set[str]:
    return {str(value) for value in values if value not in (None, "")}


def mostly_numbers(values: Sequence[Any]) -> bool:
    """Returns whether all values that are not missing are numbers, and there is at least one."""
    present = [value for value in values if value not in (None, "")]
    return bool(present) and all(map(is_number, present))


def streams_of(columns: Mapping[str, Sequence[Any]], step: float) -> dict[str, tuple[list[str], float]]:
    """Returns the streams: channels that are measured in the same rows form one stream. Maps the name of each stream to
    (its channels, the share of rows with a measurement)."""
    groups: dict[bytes, list[str]] = {}
    for name, values in columns.items():
        present = np.array([value not in (None, "") for value in values])
        rare = present.mean() < 0.8
        groups.setdefault(np.packbits(present).tobytes() if rare else b"", []).append(name)
    streams = {}
    for number, names in enumerate(groups.values(), start=1):
        share = float(np.mean([value not in (None, "") for value in columns[names[0]]]))
        streams["sensor" if len(groups) == 1 else f"sensor_{number}"] = names, share
    return streams
