"""The report of a regression: errors by range of the true values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from .report import Mistake, Picture, Reporter, Section, Table

RANGES = 10
"""The number of ranges of the true values, with about the same number of samples in each."""
DRAWN = 5000
"""The largest number of points in a picture."""
COLUMNS = ("number", "from", "to", "samples", "mean_true", "mean_error", "mae", "rmse")


class NumberReporter(Reporter):
    """The report of a task that predicts numbers. `scale` contains their standard deviations in the training data, by
    which the worst answers are compared."""

    def __init__(self, names: Sequence[str], scale: Sequence[float]):
        super().__init__()
        self.names, self.scale = list(names), list(scale)
        self.rows: list[tuple[list[float], list[float]]] = []

    def add(self, number: int, key: str, true: Any, answer: Mapping[str, Any]) -> None:
        values = answer["values"]
        predicted = list(values.values()) if isinstance(values, Mapping) else list(values)
        given = true if isinstance(true, list | tuple) else [true]
        expected = [math.nan if value is None else float(value) for value in given]
        self.rows.append((expected, predicted))
        errors = [abs(a - b) / s for a, b, s in zip(expected, predicted, self.scale, strict=True) if not math.isnan(a)]
        if errors:
            text = f"{shown(predicted)}, true: {shown(expected)}"
            self.note_mistake(max(errors), Mistake(number, key, text, answer, true))

    def section(self, saved: Mapping[str, Any], store: bool) -> Section:
        if not self.rows:
            return Section(0)
        true, predicted = (np.array(column, dtype=np.float64) for column in zip(*self.rows))
        rows, pictures = [], []
        for index, name in enumerate(self.names):
            known = ~np.isnan(true[:, index])
            values, guesses = true[known, index], predicted[known, index]
            rows += [[name, *row] for row in range_rows(values, guesses)]
            title = f"{name} ({len(values):,} samples)"
            pictures.append(Picture(f"residuals-{index}", title, partial(draw_errors, values, guesses), (8.0, 3.6)))
        note = f"{len(self.rows):,} samples; the last row of each number is about all of them"
        tables = [Table("residuals", "Errors by range of the true value", COLUMNS, rows, note)]
        return Section(len(self.rows), tables, pictures[:12], self.worst())


def shown(values: Sequence[float]) -> str:
    """Returns numbers as text: `1.5, 2`."""
    return ", ".join(f"{value:.6g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")


def range_rows(true: Float[np.ndarray, "n"], predicted: Float[np.ndarray, "n"]) -> list[list[Any]]:
    """Returns a row for each range of the true values, and one for all of them, with the columns COLUMNS after the
    first. `mean_error` is the mean of (predicted - true)."""
    if not len(true):
        return []
    edges = np.unique(np.quantile(true, np.linspace(0, 1, RANGES + 1)))
    numbers = np.clip(np.searchsorted(edges, true, "right") - 1, 0, max(len(edges) - 2, 0))
    groups = [(edges[n], edges[min(n + 1, len(edges) - 1)], numbers == n) for n in range(max(len(edges) - 1, 1))]
    rows = []
    for low, high, chosen in [*groups, (true.min(), true.max(), np.ones(len(true), bool))]:
        if chosen.any():
            errors = predicted[chosen] - true[chosen]
            rows.append([
                float(low), float(high), int(chosen.sum()), float(true[chosen].mean()), float(errors.mean()),
                float(np.abs(errors).mean()), float(np.sqrt((errors**2).mean())),
            ])  # fmt: skip
    return rows


def draw_errors(true: Float[np.ndarray, "n"], predicted: Float[np.ndarray, "n"], canvas: Any) -> None:
    """Draws the predicted against the true values."""
    step = max(1, len(true) // DRAWN)
    canvas.plot(true[::step], predicted[::step], ".", markersize=3, alpha=0.5)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    canvas.plot(ends, ends, color="gray", linewidth=1)
    canvas.set(xlabel="true", ylabel="predicted")
