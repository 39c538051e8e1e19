"""`chopmix compare RUN...`: a table of several runs with intervals and paired differences, and their curves in one
picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..files.errors import RunError
from ..files.pictures import LINES, picture
from ..files.printing import printable
from ..files.writing import write_bytes
from ..inference.document import Line, draw_line
from .figure_table import Estimate, FigureTable
from .groups import Curve, Group
from .results import main_metrics

PICTURES = (".png", ".pdf", ".svg", ".jpg")
"""The file extensions that `draw_curves` accepts."""
NOT_COMPARED = re.compile(r"format|out|from|training\.seed|data\.split\.fold|logging\..*")
"""Settings that do not change a model."""


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Returns (key, value in each group) for the settings that differ between the groups; `–` for a key that a group
    does not have or that is null. Empty if a group has no readable configuration."""
    if not all(group.settings for group in groups):
        return []
    keys = dict.fromkeys(key for group in groups for key in group.settings if not NOT_COMPARED.fullmatch(key))
    rows = [(key, [group.settings.get(key) for group in groups]) for key in keys]
    return [
        (key, ["–" if value is None else str(value) for value in values])
        for key, values in rows
        if len({*map(str, values)}) > 1
    ]


def shared_metrics(groups: Sequence[Group]) -> list[str]:
    """Returns the metrics that all groups have, in the order of the first group."""
    return [name for name in groups[0].metrics if all(name in group.metrics for group in groups)]


def comparison(groups: Sequence[Group]) -> FigureTable:
    """Returns a table with the figures of each group, and then, for each group except the first, the differences from
    the first group, paired by seeds and by samples. Raises RunError if the groups have no common metric."""
    first, others = groups[0], groups[1:]
    if not shared_metrics(groups):
        found = "; ".join(f"{group.name}: {', '.join(list(group.metrics)[:5]) or 'none'}" for group in groups)
        raise RunError(f"the runs have no common metric. Metrics of {found}")
    differences = [group.minus(first) for group in others]
    rows = []
    for name in shared_metrics(groups):
        values = [group.values(name) for group in groups]
        cells = [estimate_of(group, name) for group in groups]
        cells += [
            Estimate(paired(values[0], each), intervals.get(name), first.has_seeds and are_paired(values[0], each))
            for each, intervals in zip(values[1:], differences, strict=True)
        ]
        rows.append((name, cells))
    names = [group.name for group in groups]
    columns = [*names, *(f"{name} - {names[0]}" for name in names[1:])]
    return FigureTable(columns, rows, captions(groups, differences), settings=differing_settings(groups))


def estimate_of(group: Group, name: str) -> Estimate:
    """Returns the values of a metric of a group with their intervals."""
    return Estimate([*group.values(name).values()], group.intervals.values.get(name), group.has_seeds)


def captions(groups: Sequence[Group], differences: Sequence[Any] = ()) -> list[str]:
    """Returns sentences about the figures of groups: how their intervals were computed, and on which samples the
    checkpoints were chosen."""
    lines = dict.fromkeys(f"{group.name}: {group.intervals.caption()}" for group in groups if group.intervals.caption())
    texts = {group.intervals.caption() for group in groups}
    found = list(lines) if len(texts) > 1 else [text for text in texts if text]
    if differences:
        known = [bool(intervals) for intervals in differences]
        how = "the same samples are drawn for both" if any(known) else "the runs have no sums of common samples"
        found.append(f"Differences are paired by seed; {how}.")
    choices = {group.choice for group in groups}
    return [*found, *(choices if len(choices) == 1 else (f"{group.name}: {group.choice}" for group in groups))]


def paired(first: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """Returns the list of differences `other` - `first` for the seeds that both contain. If they share no seed, returns
    a list with the difference of the means."""
    if are_paired(first, other):
        return [other[seed] - first[seed] for seed in first if seed in other]
    return [float(np.mean([*other.values()]) - np.mean([*first.values()]))]


def are_paired(first: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Returns whether two groups share a seed."""
    return bool(first.keys() & other.keys())


def on_terminal(table: FigureTable) -> FigureTable:
    """Returns a comparison without the metrics without some of the inputs; a caption says so."""
    shown = [row for row in table.rows if "/without_" not in row[0]]
    left_out = len(table.rows) - len(shown)
    note = f"Metrics without some of the inputs, only in --output FILE.csv: {left_out}."
    return replace(table, rows=shown, captions=[*table.captions, *([note] if left_out else [])])


def curved_metrics(groups: Sequence[Group]) -> list[str]:
    """Returns the metrics with a curve in all groups, in the order of the first group: those with several points that
    are not all the same, and that are not only integers, such as `val/judged`."""
    names = [name for name in next(iter(groups[0].curves.values()), {}) if not name.startswith("data/")]
    found = []
    for name in names:
        curves = [[curves[name] for curves in group.curves.values() if name in curves] for group in groups]
        every = [curve for of_group in curves for curve in of_group]
        values = {value for curve in every for _, value in curve}
        is_curve = any(len(curve) > 1 for curve in every) and len(values) > 1
        if all(curves) and is_curve and any(isinstance(value, float) for value in values):
            found.append(name)
    return found


def main_curves(groups: Sequence[Group], most: int = 9) -> list[str]:
    """Returns the metrics that are worth a curve, at most `most`: the training loss, the metrics that select the best
    checkpoints, and the other main metrics of the tasks."""
    curved, bests = curved_metrics(groups), [group.best for group in groups]
    ordered = [name for name in ("train/loss", *bests) if name in curved]
    return list(dict.fromkeys([*ordered, *main_metrics(curved, bests[0])]))[:most]


def curves_of(group: Group, metric: str) -> list[Curve]:
    """Returns the curve of a metric of each run of a group that has it."""
    return [curves[metric] for curves in group.curves.values() if metric in curves]


def mean_line(curves: Sequence[Curve]) -> Line:
    """Returns the mean of the curves of several runs, with a band of one standard deviation. At a step that only some
    runs have, the mean is over these. A single curve has no band."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite and very large values
        means = [float(np.mean(values[step])) for step in steps]
        band = [float(np.std(values[step], ddof=1)) if len(values[step]) > 1 else 0.0 for step in steps]
    return Line(steps, means, band if len(curves) > 1 else ())


def draw_curves(groups: Sequence[Group], file: Path) -> None:
    """Draw a picture with a panel for each metric of `main_curves`. A group has one colour: a line for the mean over
    its seeds, a band of one standard deviation around it, and a thin line for each seed. Raises RunError if the file
    extension is not in PICTURES or if there is no curve to draw, OSError if the file cannot be written."""
    from matplotlib.lines import Line2D

    if file.suffix.lower() not in PICTURES:
        raise RunError(f"--picture {file}: possible endings: {', '.join(PICTURES)}")
    metrics = main_curves(groups)
    if not metrics:
        names = ", ".join(group.name for group in groups)
        raise RunError(f"there is no curve to draw: {names} have no common metric that changes from step to step")
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)

    def draw(figure: Any) -> None:
        panels = [*figure.subplots(rows, columns, squeeze=False).flat]
        for unused in panels[len(metrics) :]:
            unused.set_axis_off()
        for panel, metric in zip(panels, metrics):
            for number, group in enumerate(groups):
                draw_group(panel, curves_of(group, metric), LINES[number % len(LINES)])
            panel.set(title=printable(metric), xlabel="step")
            panel.grid()
        names = [printable(group.name) + seeds_of(group) for group in groups]
        lines = [
            Line2D([], [], color=LINES[number % len(LINES)], label=f" {name}") for number, name in enumerate(names)
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(names), 4))

    write_bytes(file, picture(draw, (4.2 * columns, 3 * rows + 0.3), file.suffix.lower()[1:]))


def seeds_of(group: Group) -> str:
    """Returns ` (3 runs)` for a group of several runs, else an empty text."""
    return f" ({len(group.curves)} runs)" if len(group.curves) > 1 else ""


def draw_group(panel: Any, curves: Sequence[Curve], colour: str) -> None:
    """Draws the curves of all seeds of a group on matplotlib's Axes `panel`."""
    draw_line(panel, mean_line(curves), colour)
    for curve in curves if len(curves) > 1 else ():
        draw_line(panel, Line(*zip(*curve)), colour, linewidth=0.6, alpha=0.5)
