"""`chopmix compare RUN...`: curves in one picture, and a table of means, standard deviations and paired differences."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from ..files.printing import figure_text, printable
from ..files.writing import make_folder, not_written
from ..training.log import read_metrics
from .run_folder import RunError

Curve = list[tuple[int, float]]
"""(step, value) in the order of the steps."""
PICTURES = (".png", ".pdf", ".svg", ".jpg")
"""The file endings that `draw_curves` takes."""


@dataclass(frozen=True)
class Group:
    """The curves of one run, or of its seeds (`RUN/seed-0`, `RUN/seed-1`, ...)."""

    name: str
    curves: Mapping[str, Mapping[str, Curve]]
    """By seed, then by metric: `{"seed-0": {"val/loss": [(250, 1.9), (500, 1.7)]}}`; of a single run under `run`."""

    def last(self, metric: str) -> dict[str, float]:
        """The metric's last value, by seed; without seeds that lack it."""
        return {seed: curves[metric][-1][1] for seed, curves in self.curves.items() if curves.get(metric)}


def read_group(folder: Path) -> Group:
    """The curves of a run or of its seeds. Raises RunError where there is no `metrics.jsonl`, DataError for a damaged
    one."""
    seeds = sorted(folder.glob("seed-*/metrics.jsonl")) if os.path.isdir(folder) else []
    runs = seeds or [folder / "metrics.jsonl"]
    if not os.path.exists(runs[0]):
        raise RunError(f"{folder} has no metrics.jsonl, nor have seeds below it: it is no run")
    return Group(str(folder), {file.parent.name if len(runs) > 1 else "run": read_curves(file) for file in runs})


def read_curves(file: Path) -> dict[str, Curve]:
    """Every metric of a `metrics.jsonl` over its steps. Raises DataError for a damaged line."""
    found: dict[str, Curve] = {}
    for record in read_metrics(file):
        for name, value in record.items():
            if name not in ("step", "seconds"):
                found.setdefault(name, []).append((record["step"], value))
    return found


def shared_metrics(groups: Sequence[Group]) -> list[str]:
    """The evaluation metrics (without `train/` and `data/`) that all groups have, in the order of the first."""
    first = next(iter(groups[0].curves.values()))
    names = [name for name in first if not name.startswith(("train/", "data/"))]
    return [name for name in names if all(group.last(name) for group in groups)]


def comparison_table(groups: Sequence[Group]) -> Table:
    """A row per shared metric: mean ± standard deviation of the last values of each group, then each other group's
    difference from the first, paired by seed where they have seeds in common."""
    names = [group.name for group in groups]
    heads = [*names, *(f"{name} - {names[0]}" for name in names[1:])]
    table = Table("metric", *heads)
    for metric in shared_metrics(groups):
        values = [group.last(metric) for group in groups]
        differences = [paired(values[0], other) for other in values[1:]]
        table.add_row(metric, *map(spread, (list(v.values()) for v in values)), *map(spread, differences))
    return table


def paired(first: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """`other` minus `first`, for every seed that both have; without one, the difference of the means."""
    both = [seed for seed in first if seed in other]
    if both:
        return [other[seed] - first[seed] for seed in both]
    return [statistics.mean(other.values()) - statistics.mean(first.values())]


def spread(values: Sequence[float]) -> str:
    """`1.234 ± 0.05 (3)`: mean ± standard deviation (number of values); of one value, and of equal counts, that value
    alone."""
    mean = statistics.mean(values)
    shown = figure_text(mean) if isinstance(mean, int) else f"{mean:.4g}"
    alike = len(values) == 1 or (isinstance(values[0], int) and len({*values}) == 1)
    return shown if alike else f"{shown} ± {statistics.stdev(values):.2g} ({len(values)})"


def draw_curves(groups: Sequence[Group], file: Path) -> None:
    """Draw a panel for the training loss and for each shared metric, at most nine, without counts such as `val/judged`,
    with a colour per group and a line per seed. Raises RunError for another ending than those in PICTURES and where
    there is no curve, OSError where the file cannot be written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if file.suffix.lower() not in PICTURES:
        raise RunError(f"--picture {file}: possible endings: {', '.join(PICTURES)}")
    possible = "train/loss", *shared_metrics(groups)
    last = {name: [value for group in groups for value in group.last(name).values()] for name in possible}
    metrics = [name for name, values in last.items() if any(isinstance(value, float) for value in values)][:9]
    if not metrics:
        names = ", ".join(group.name for group in groups)
        raise RunError(f"{names} have no metric in common: there is no curve to draw")
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    with rc_context({"text.parse_math": False}):  # a `$` in a name is no formula
        figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
        for panel, metric in zip(figure.subplots(rows, columns, squeeze=False).flat, metrics):
            for number, group in enumerate(groups):
                for index, curves in enumerate(group.curves.values()):
                    if metric in curves:
                        marker = "o" if len(curves[metric]) < 2 else None  # one point has no line
                        label = None if index else f" {printable(group.name)}"  # one that begins with _ is not shown
                        panel.plot(*zip(*curves[metric]), color=f"C{number}", marker=marker, label=label)
            panel.set(title=printable(metric), xlabel="step")
            panel.legend(fontsize=7)
    make_folder(file.parent)
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise not_written(file, error) from error
