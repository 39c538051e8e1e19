"""The report of a forecast: errors by the number of steps ahead, next to those of the baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from .report import Mistake, Picture, Reporter, Section, Table, divided

LABELS = {
    "values": "forecast", "last_value": "last value", "last_period": "same time in the last period",
    "ridge": "ridge regression",
}  # fmt: skip
"""The names of the forecast and of the baselines in a picture, by the keys of an answer."""


class ForecastReporter(Reporter):
    """The report of a task that predicts `channels` for several steps. `scale` contains, for each channel and step, the
    error by which the worst answers are compared; `baselines`: the names of those that answers contain."""

    def __init__(
        self,
        channels: Sequence[str],
        quantiles: Sequence[float],
        scale: Sequence[Sequence[float]],
        baselines: Sequence[str],
    ):
        super().__init__()
        self.channels, self.scale = list(channels), np.array(scale)
        self.keys = ["values", *baselines]
        self.levels = [f"{quantile:g}" for quantile in quantiles]
        shape = self.scale.shape
        self.samples, self.known = 0, np.zeros(shape, int)
        self.errors = {key: np.zeros(shape) for key in self.keys}
        self.below = {level: np.zeros(shape, int) for level in self.levels}
        self.inside, self.width = np.zeros(shape, int), np.zeros(shape)

    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        future = np.array([true[channel] for channel in self.channels], dtype=np.float64)
        known = ~np.isnan(future)
        if not known.any():
            return
        self.samples += 1
        self.known += known
        for name in self.keys:
            values = np.array([answer[name][channel] for channel in self.channels])
            self.errors[name] += np.where(known, np.abs(values - future), 0.0)
        by_level = {
            level: np.array([answer["quantiles"][channel][level] for channel in self.channels]) for level in self.levels
        }
        for level, values in by_level.items():
            self.below[level] += known & (future <= values)
        lowest, highest = by_level[self.levels[0]], by_level[self.levels[-1]]
        self.inside += known & (lowest <= future) & (future <= highest)
        self.width += np.where(known, highest - lowest, 0.0)
        values = np.array([answer["values"][channel] for channel in self.channels])
        badness = float(np.nanmean(np.abs(values - future) / self.scale))
        errors = np.nanmean(np.where(known, np.abs(values - future), np.nan), axis=1) if known.all() else None
        means = ", ".join(f"{c} {e:.4g}" for c, e in zip(self.channels, errors)) if errors is not None else "some known"
        self.note_mistake(badness, Mistake(number, key, f"mean absolute error: {means}", answer, true))

    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        if not self.samples:
            return Section(0)
        note = (
            f"{self.samples:,} samples; `coverage` is the share of true values between the quantiles {self.levels[0]} "
            f"and {self.levels[-1]}, `width` their mean distance; the rows without a step are about all steps"
        )
        errors = [f"mae_{key}" if key != "values" else "mae" for key in self.keys]
        quantiles = ["coverage", "width", *(f"below_{level}" for level in self.levels)]
        columns = ["channel", "step", "samples", *errors, *quantiles]
        rows, lines, pictures = [], [], []
        for index, channel in enumerate(self.channels):
            known = np.where(self.known[index] > 0, self.known[index], np.nan)  # a step without values is not drawn
            by_step = {key: self.errors[key][index] / known for key in self.keys}
            rows += [self.row(index, step) for step in (slice(None), *range(self.scale.shape[1]))]
            best = min((key for key in self.keys if key != "values"), key=lambda key: self.errors[key][index].sum())
            ratio = divided(self.errors["values"][index].sum(), self.errors[best][index].sum())
            total = int(self.known[index].sum())
            if ratio is not None and total:
                mean = self.errors["values"][index].sum() / total
                lines.append(
                    f"{channel}: mean absolute error {mean:.4g}, {ratio:.2f} times that of `{LABELS[best]}`; "
                    f"{self.inside[index].sum() / total:.0%} of the values are between the quantiles {self.levels[0]} "
                    f"and {self.levels[-1]}"
                )
            pictures.append(Picture(f"steps-{index}", channel, partial(draw_steps, by_step), (6.4, 3.6)))
        tables = [Table("steps", "Errors by the number of steps ahead", columns, rows, note, shown=60)]
        return Section(self.samples, tables, pictures[:12], self.worst(), lines)

    def row(self, channel: int, step: Any) -> list[Any]:
        """Returns the row of the table for a step (from 0), or for all steps."""
        known = int(self.known[channel, step].sum())
        counts = [self.inside, self.width, *self.below.values()]
        return [
            self.channels[channel], "" if isinstance(step, slice) else step + 1, known,
            *(divided(float(self.errors[key][channel, step].sum()), known) for key in self.keys),
            *(divided(float(count[channel, step].sum()), known) for count in counts),
        ]  # fmt: skip


def draw_steps(errors: Mapping[str, Float[np.ndarray, "h"]], canvas: Any) -> None:
    """Draws the mean absolute errors of the forecast and of the baselines by the number of steps ahead. A step without
    values (NaN) is a gap in the lines."""
    for key, values in errors.items():
        steps, style = range(1, len(values) + 1), "-" if key == "values" else "--"
        canvas.plot(steps, values, style, marker="." if len(values) < 100 else None, label=LABELS[key])
    canvas.set(xlabel="steps ahead", ylabel="mean absolute error", ylim=(0, None))
    canvas.legend()
