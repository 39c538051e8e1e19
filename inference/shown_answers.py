"""How pages show a sample and the answer of a task: its inputs as pictures and sounds, the answer as a short text, and
predicted numbers as curves next to the true ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..data.split import SampleSplit
from ..files.pictures import COLOURS, panels
from ..files.printing import one_line
from .document import drawing
from .evaluator import TrainedRun
from .pages import Cell, drawn_cell, media_cell
from .predict import read_by

PANELS, NUMBERS = 4, 6
"""The largest number of channels of a forecast that are drawn, and of numbers that a text shows."""
LONGEST = 200
"""The largest number of characters of a text."""


def input_cells(trained: TrainedRun, split: SampleSplit, number: int, are_drawn: bool = True) -> list[Cell]:
    """Returns the inputs of a sample from which tasks predict, as cells: values that can be seen or heard, and, if
    `are_drawn`, drawings of the others. Raises ValueError or OSError if the sample cannot be read."""
    raw, items = split.samples.row(number), split.item(number)[0]
    read = {name for task in trained.tasks for name in read_by(trained.tasks, trained.choppers, task)}
    cells = []
    for name, column in trained.wiring.columns.items():
        if name not in read or raw.get(column) is None:
            continue
        cell = media_cell(name, raw[column])
        if cell is None and are_drawn:
            cell = drawn_cell(trained.choppers[name], name, items.get(name))
        cells += [cell] if cell is not None else []
    return cells


def short_text(answer: Mapping[str, Any]) -> str:
    """Returns an answer of a task as a short text: {"class": "cat", "probabilities": {"cat": 0.93, ...}} becomes `cat
    (0.93)`, and {"values": {"air": [12.51, 12.4]}} becomes `air: 12.51, 12.4`."""
    if "class" in answer:
        probability = answer.get("probabilities", {}).get(str(answer["class"]))
        return f"{answer['class']}" + (f" ({probability:.2f})" if probability is not None else "")
    for key in ("text", "classes", "error"):
        if key in answer:
            return answer[key] if isinstance(answer[key], str) else ", ".join(map(str, answer[key])) or "none"
    return value_text(answer["values"]) if "values" in answer else value_text(answer)


def value_text(value: Any) -> str:
    """Returns a predicted or true value as a short text, with four digits of each number: `air: 12.51, 12.4`."""
    text = one_line("".join(parts_of(value)))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def parts_of(value: Any) -> Iterator[str]:
    """Yields the parts of the text of a value."""
    if isinstance(value, bool) or not isinstance(value, float | Mapping | list | tuple):
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    elif isinstance(value, float):
        yield f"{value:.4g}"
    elif isinstance(value, Mapping):
        nested = any(isinstance(each, Mapping | list | tuple) for each in value.values())
        for number, (name, each) in enumerate(value.items()):
            yield from ("; " if nested and number else ", " if number else "", f"{name}{':' if nested else ''} ")
            yield from parts_of(each)
    else:
        for number, each in enumerate(value[:NUMBERS]):
            yield from (", " if number else "", *parts_of(each))
        if len(value) > NUMBERS:
            yield f", ... ({len(value):,} numbers)"


def answer_cell(name: str, answer: Mapping[str, Any], true: Any) -> Cell | None:
    """Returns a cell with the curves of an answer that consists of numbers: the steps of each channel of a forecast
    with the lowest and the highest quantile, or the numbers of a regression side by side. `true`: the true value in the
    same form, None if it is unknown. Returns None for every other answer, and for fewer than three numbers."""
    values = answer.get("values")
    if isinstance(values, Mapping) and values and all(isinstance(row, Sequence) for row in values.values()):
        return forecast_cell(name, answer, true)
    names = list(values) if isinstance(values, Mapping) else None
    numbers = list(values.values()) if isinstance(values, Mapping) else values
    if not isinstance(numbers, Sequence) or isinstance(numbers, str) or len(numbers) < 3:
        return None
    return numbers_cell(name, numbers, names, true)


def forecast_cell(name: str, answer: Mapping[str, Any], true: Any) -> Cell:
    """Returns the curves of a forecast, each channel in a panel of its own."""
    values, known = answer["values"], true if isinstance(true, Mapping) else {}
    channels = list(values)[:PANELS]

    def draw_forecast(canvas: Any) -> None:
        for panel, channel in zip(panels(canvas, len(channels), 1.3), channels):
            levels = [*answer.get("quantiles", {}).get(channel, {}).items()]
            draw_curves(panel, values[channel], known.get(channel), levels)
            panel.set(ylabel=channel)
        panel.set(xlabel="steps ahead")

    return Cell(name, drawing=drawing(draw_forecast, (3.6, 1.8)), is_plot=True)


def numbers_cell(name: str, numbers: Sequence[float], names: Sequence[str] | None, true: Any) -> Cell:
    """Returns the curve of several numbers."""

    def draw_numbers(canvas: Any) -> None:
        draw_curves(canvas, numbers, true if isinstance(true, Sequence) else None, [])
        if names and len(names) <= 12:
            canvas.set_xticks(range(1, len(names) + 1), names, rotation=30)
        else:
            canvas.set(xlabel="number")

    return Cell(name, drawing=drawing(draw_numbers, (3.6, 1.8)), is_plot=True)


def draw_curves(
    canvas: Any, values: Sequence[float], true: Sequence[float | None] | None, levels: Sequence[tuple[str, Any]]
) -> None:  # fmt: skip
    """Draws predicted and true numbers, and a band between the first and the last of the quantiles `levels`."""
    steps = range(1, len(values) + 1)
    if len(levels) > 1:
        low, high = floats(levels[0][1]), floats(levels[-1][1])
        canvas.fill_between(steps, low, high, color=COLOURS[1], alpha=0.25, linewidth=0)
    canvas.plot(steps, floats(values), color=COLOURS[1], marker="." if len(values) < 30 else "", label="predicted")
    if true is not None and len(true) == len(values):
        canvas.plot(
            steps, floats(true), color="black", linewidth=1, marker="." if len(values) < 30 else "", label="true"
        )
    canvas.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderpad=0)


def floats(values: Sequence[float | None]) -> Float[np.ndarray, "n"]:
    """Returns numbers as an array, in which a missing number is NaN."""
    return np.array(values, dtype=np.float64)
