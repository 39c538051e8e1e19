"""`chopmix forecast RUN`: the steps after the last row of a table, as rows and as a picture.

{"time": "2010-12-31T00:00:00.000", "step": 1, "channel": "temp", "value": 47.6, "quantiles": {"0.1": 47.4, "0.9":
 47.7}, "last_value": 48.2, "last_period": 47.8}
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.table_files import Moments
from ..files.errors import RunError
from ..files.pictures import picture
from ..files.printing import say_aside
from ..files.writing import write_bytes
from ..tasks.measuring.forecast_report import LABELS
from .run import Run

NOTED = 0.1
"""The share of missing measurements in the last window above which a note says so."""


@dataclass(frozen=True, kw_only=True)
class NextSteps:
    """The forecast of one task from the end of a table."""

    task: str
    answer: Mapping[str, Any]
    """The answer of the task (`Forecast.answers`)."""
    past: Mapping[str, Float[np.ndarray, "m"]]
    """The measurements in the last window by channel."""
    past_times: Float[np.ndarray, "m"]
    times: Float[np.ndarray, "h"]
    """The times of the predicted steps in seconds."""
    units: Mapping[str, str | None]
    """The units of the channels."""
    moments: Moments
    """The times of the table as texts."""

    def rows(self, with_task: bool) -> list[dict[str, Any]]:
        """Returns one row per channel and step; `with_task`: with the name of the task."""
        baselines = [name for name in LABELS if name in self.answer and name != "values"]
        return [
            {**({"task": self.task} if with_task else {}),
             "time": self.moments.text(time), "step": step + 1, "channel": channel, "value": values[step],
             "quantiles": {level: levels[step] for level, levels in self.answer["quantiles"][channel].items()},
             **{name: self.answer[name][channel][step] for name in baselines}}
            for channel, values in self.answer["values"].items()
            for step, time in enumerate(self.times.tolist())
        ]  # fmt: skip

    def axis(self, times: Float[np.ndarray, "n"]) -> Any:
        """Returns times as a picture shows them: as local dates if they are dates, else as seconds."""
        if not self.moments.dates:
            return times
        return [datetime.fromtimestamp(time + (self.moments.offset(time) or 0), UTC) for time in times.tolist()]

    def draw(self, channel: str, canvas: Any) -> None:
        """Draws a channel: its last window, and the forecast with its lowest and highest quantile."""
        levels = list(self.answer["quantiles"][channel].items())
        count, times = len(self.times), self.axis(self.times)
        canvas.plot(self.axis(self.past_times), self.past[channel], color="0.3", label="measured")
        canvas.axvline(self.axis(self.past_times)[-1], color="0.7", linewidth=1)
        if "last_period" in self.answer:
            values, label = self.answer["last_period"][channel][:count], LABELS["last_period"]
            canvas.plot(times, values, ":", color="C1", label=label)
        canvas.plot(times, self.answer["values"][channel][:count], color="C0", label=LABELS["values"])
        if len(levels) > 1:
            (low, lowest), (high, highest) = levels[0], levels[-1]
            band = {"color": "C0", "alpha": 0.25, "linewidth": 0, "label": f"quantiles {low} to {high}"}
            canvas.fill_between(times, lowest[:count], highest[:count], **band)
        unit = self.units.get(channel)
        canvas.set(ylabel=f"{channel} ({unit})" if unit else channel, xlabel="" if self.moments.dates else "seconds")
        canvas.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)


def next_steps(
    run: Run, data: str | None, horizon: int | None, say: Callable[[str], None] = say_aside
) -> list[NextSteps]:  # fmt: skip
    """Returns the forecast of each task `forecast` of a run for the `horizon` steps (None: all that it predicts) after
    the last row of the table `data` (None: the last table of the run's training). `say` is called with notes about the
    last window. Raises RunError if the run has no such task, was not trained on a table, or forecasts fewer steps;
    DataError if the table cannot be read or is shorter than a window."""
    tasks = {name: task for name, task in run.tasks.items() if task.horizon is not None}
    if not tasks:
        raise RunError(f"{run.folder} has no task `forecast`, so it forecasts nothing")
    horizon = min(task.horizon for task in tasks.values()) if horizon is None else horizon
    if horizon < 1:
        raise RunError(f"--horizon must be at least 1 step, not {horizon}")
    for name, task in tasks.items():
        if horizon > task.horizon:
            raise RunError(
                f"--horizon {horizon}: the task {name!r} of {run.folder} was trained to forecast {task.horizon} steps; "
                "for more, train with a longer `horizon` of the stream"
            )
    table = run.config.data.dataset() if run.has_dataset else None
    if table is not None and data is not None:
        path = Path(os.path.expanduser(data))
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise RunError(f"--data {data}: --horizon needs a table (.csv or .parquet)")
        table = table.like(str(path), label=False)
    window = None if table is None else table.latest()
    if window is None:
        raise RunError(f"{run.folder} was not trained on a table, so the time after its end is unknown; use --input")
    row = window.row(0)
    columns = run.wiring.columns
    sample = {name: row[columns[name]] for name in run.choppers if row.get(columns[name]) is not None}
    answer = run.predict(sample)
    found = []
    for name, task in tasks.items():
        column, of_task = columns[task.input], answer.get(name, answer)
        if column not in table.streams or table.streams[column].interval is None:
            raise RunError(
                f"{run.folder}: the input {task.input!r} is no stream of the table with `every` or `rate`, so the "
                "times of the forecast are unknown; use --input"
            )
        if "error" in of_task:
            raise RunError(f"{window.keys[0]}: {of_task['error']}")
        values, slots = row[column]["values"], window.slots(column)
        past = {channel: values[:, number] for channel, number in zip(task.channels, task.columns)}
        missing = np.isnan(values[:, task.columns]).mean()
        if missing > NOTED:
            say(f"{missing:.0%} of the measurements of {task.input} in the last window, {window.keys[0]}, are missing")
        past_times = window.times_of_slots(0, column, 0, slots)
        times = window.times_of_slots(0, column, slots, horizon)
        channels = task.chopper.channels
        found.append(
            NextSteps(task=name, answer=of_task, past=past, past_times=past_times, times=times,
                      moments=window.moments,
                      units=channels if isinstance(channels, dict) else {})
        )  # fmt: skip
    return found


def write_picture(path: Path, forecasts: Sequence[NextSteps]) -> None:
    """Writes a picture (PNG) with a row for each channel."""
    parts = [(each, channel) for each in forecasts for channel in each.answer["values"]]

    def draw(figure: Any) -> None:
        for canvas, (each, channel) in zip(figure.subplots(len(parts), squeeze=False)[:, 0], parts):
            each.draw(channel, canvas)

    write_bytes(path, picture(draw, (9.0, 1.2 + 2.8 * len(parts))))
