"""`chopmix compare RUN...`: draws all curves into one picture, and prints a table of means, standard deviations and
differences."""

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
"""(step, value) pairs in the order of the steps."""
PICTURES = (".png", ".pdf", ".svg", ".jpg")
"""The file extensions that `draw_curves` accepts."""


@dataclass(frozen=True)
class Group:
    """The curves of one run, or of several runs of one configuration with different seeds (`RUN/seed-0`, `RUN/seed-1`,
    ...)."""

    name: str
    curves: Mapping[str, Mapping[str, Curve]]
    """The curves by seed, then by metric: `{"seed-0": {"val/loss": [(250, 1.9), (500, 1.7)]}}`. For a single run the
    key is `run` instead of the seed."""

    def last(self, metric: str) -> dict[str, float]:
        """Returns the last value of the metric by seed. Seeds without this metric are omitted."""
        return {seed: curves[metric][-1][1] for seed, curves in self.curves.items() if curves.get(metric)}


def read_group(folder: Path) -> Group:
    """Returns the curves of a run, or of all seeds in a folder. Raises RunError if there is no `metrics.jsonl`,
    DataError if such a file is damaged."""
    seeds = sorted(folder.glob("seed-*/metrics.jsonl")) if os.path.isdir(folder) else []
    runs = seeds or [folder / "metrics.jsonl"]
    if not os.path.exists(runs[0]):
        raise RunError(f"{folder} is not a run: it has no metrics.jsonl, and no seed-*/metrics.jsonl")
    return Group(str(folder), {file.parent.name if len(runs) > 1 else "run": read_curves(file) for file in runs})


def read_curves(file: Path) -> dict[str, Curve]:
    """Returns the curve of every metric in a `metrics.jsonl`, by metric. Raises DataError for a damaged line."""
    curves: dict[str, Curve] = {}
    for record in read_metrics(file):
        for name, value in record.items():
            if name not in ("step", "seconds"):
                curves.setdefault(name, []).append((record["step"], value))
    return curves


def shared_metrics(groups: Sequence[Group]) -> list[str]:
    """Returns the evaluation metrics that all groups have, in the order of the first group. The prefixes `train/` and
    `data/` are not those of evaluation metrics."""
    first = next(iter(groups[0].curves.values()))
    names = [name for name in first if not name.startswith(("train/", "data/"))]
    return [name for name in names if all(group.last(name) for group in groups)]


def comparison_table(groups: Sequence[Group]) -> Table:
    """Returns a table with one row per shared metric. The columns are: for each group the mean ± standard deviation of
    the last values; then, for each group except the first, the difference from the first group (see `paired`)."""
    names = [group.name for group in groups]
    columns = [*names, *(f"{name} - {names[0]}" for name in names[1:])]
    table = Table("metric", *columns)
    for metric in shared_metrics(groups):
        values = [group.last(metric) for group in groups]
        differences = [paired(values[0], group_values) for group_values in values[1:]]
        table.add_row(metric, *map(spread, (list(v.values()) for v in values)), *map(spread, differences))
    return table


def paired(first: Mapping[str, float], other: Mapping[str, float]) -> list[float]:
    """Returns the list of differences `other` - `first` for the seeds that both contain. If they share no seed, returns
    a list with the difference of the means."""
    shared_seeds = [seed for seed in first if seed in other]
    if shared_seeds:
        return [other[seed] - first[seed] for seed in shared_seeds]
    return [statistics.mean(other.values()) - statistics.mean(first.values())]


def spread(values: Sequence[float]) -> str:
    """Returns mean ± standard deviation (number of values): `1.234 ± 0.05 (3)`. Returns only the mean if there is only
    one value, or if all values are the same integer."""
    mean = statistics.mean(values)
    text = figure_text(mean) if isinstance(mean, int) else f"{mean:.4g}"
    is_constant = len(values) == 1 or (isinstance(values[0], int) and len({*values}) == 1)
    return text if is_constant else f"{text} ± {statistics.stdev(values):.2g} ({len(values)})"


def draw_curves(groups: Sequence[Group], file: Path) -> None:
    """Draw a picture with a panel for the training loss and for each shared metric, at most nine panels. A group has
    one colour, and each seed has a line. Metrics with only integer values, such as `val/judged`, are not drawn. Raises
    RunError if the file extension is not in PICTURES or if there is no metric to draw, OSError if the file cannot be
    written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if file.suffix.lower() not in PICTURES:
        raise RunError(f"--picture {file}: possible endings: {', '.join(PICTURES)}")
    possible = "train/loss", *shared_metrics(groups)
    last = {name: [value for group in groups for value in group.last(name).values()] for name in possible}
    metrics = [name for name, values in last.items() if any(isinstance(value, float) for value in values)][:9]
    if not metrics:
        names = ", ".join(group.name for group in groups)
        raise RunError(f"there is no curve to draw: {names} have no common metric with values that are not integers")
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    with rc_context({"text.parse_math": False}):  # a `$` in a name does not begin a formula
        figure = Figure(figsize=(4.2 * columns, 3 * rows), layout="constrained")
        for panel, metric in zip(figure.subplots(rows, columns, squeeze=False).flat, metrics):
            for number, group in enumerate(groups):
                for index, curves in enumerate(group.curves.values()):
                    if metric in curves:
                        marker = "o" if len(curves[metric]) < 2 else None  # a single point has no line
                        label = None if index else f" {printable(group.name)}"  # labels that begin with _ are hidden
                        panel.plot(*zip(*curves[metric]), color=f"C{number}", marker=marker, label=label)
            panel.set(title=printable(metric), xlabel="step")
            panel.legend(fontsize=7)
    make_folder(file.parent)
    try:
        figure.savefig(file, dpi=120)
    except (OSError, ValueError) as error:
        raise not_written(file, error) from error
