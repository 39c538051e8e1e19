"""`chopmix compare RUN...`: draws all curves into one picture, and prints a table of means, standard deviations and
differences."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from ..files.pictures import LINES, picture
from ..files.printing import figure_text, printable
from ..files.progress import counted
from ..files.rows import ending_of, row_file
from ..files.writing import write_bytes, write_text
from ..training.log import read_metrics
from .results import by_setting, main_metrics, read_results, short_setting
from .run_folder import RunError, name_of
from .settings.document import ConfigError, Document

Curve = list[tuple[int, float]]
"""(step, value) pairs in the order of the steps."""
TABLES = (".csv", ".md", ".tex")
"""The file extensions that `write_comparison` accepts."""
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
    best: str = ""
    """The metric that selects the best checkpoint."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the first run: `{"training.steps": 900}`."""

    def last(self, metric: str) -> dict[str, float]:
        """Returns the last value of the metric by seed. Seeds without this metric are omitted."""
        return {seed: curves[metric][-1][1] for seed, curves in self.curves.items() if curves.get(metric)}


def read_groups(folders: Sequence[Path]) -> list[Group]:
    """Returns the curves of runs, of folders of seeds, and of sweeps: one group for each setting of a sweep. The names
    are shortened to what differs. Raises RunError if a folder has no runs, DataError if a file is damaged."""
    groups = [group for folder in counted(folders, "folders") for group in groups_of(folder)]
    return [replace(group, name=name) for group, name in zip(groups, short_names([group.name for group in groups]))]


def groups_of(folder: Path) -> list[Group]:
    """Returns the groups of one folder."""
    results = read_results(folder)
    settings = by_setting(results) if results else {}
    if results is None or [*settings] == [()]:
        return [read_group(folder)]
    groups = []
    for setting, runs in settings.items():
        seeds = {f"seed-{run.seed}" + ("" if run.fold is None else f"/fold-{run.fold}"): run for run in runs}
        curves = {name: read_curves(folder / run.folder / "metrics.jsonl") for name, run in seeds.items()}
        tree = read_tree(folder / runs[0].folder)
        groups.append(Group(f"{folder}/{short_setting(setting)}", curves, results.best, dict(flat(tree))))
    return groups


def short_names(names: Sequence[str]) -> list[str]:
    """Returns names without the folders that all of them begin with: `runs/a/x` and `runs/b` become `a/x` and `b`."""
    parts = [name.split("/") for name in names]
    common = 0
    while len(parts) > 1 and all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return ["/".join(each[common:]) for each in parts]


def read_group(folder: Path) -> Group:
    """Returns the curves of a run, or of all seeds or folds in a folder. Raises RunError if there is no
    `metrics.jsonl`, DataError if such a file is damaged."""
    found = [sorted(folder.glob(f"{name}-*/metrics.jsonl")) for name in ("seed", "fold") if os.path.isdir(folder)]
    runs = next(filter(None, found), [folder / "metrics.jsonl"])
    if not os.path.exists(runs[0]):
        raise RunError(f"{folder} is not a run: it has no metrics.jsonl, and no seed-*/metrics.jsonl or sweep.json")
    curves = {file.parent.name if len(runs) > 1 else "run": read_curves(file) for file in runs}
    settings = dict(flat(read_tree(runs[0].parent)))
    return Group(name_of(folder), curves, str(settings.get("checkpoints.best", "")), settings)


def read_tree(run: Path) -> Any:
    """Returns the content of a run's `config.yaml`; empty if the file is missing or damaged."""
    try:
        return Document.read(run / "config.yaml").tree
    except ConfigError:
        return {}


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) for the values of a configuration: `("model.block.norm.use", "rms_norm")`."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


NOT_COMPARED = re.compile(r"format|out|from|training\.seed|logging\..*")
"""Settings that do not change a model."""


def differing_settings(groups: Sequence[Group]) -> list[tuple[str, list[str]]]:
    """Returns (key, value in each group) for the settings that differ between the groups; `–` for a key that a group
    does not have. Empty if a group has no readable configuration."""
    if not all(group.settings for group in groups):
        return []
    keys = dict.fromkeys(key for group in groups for key in group.settings if not NOT_COMPARED.fullmatch(key))
    rows = [(key, [str(group.settings.get(key, "–")) for group in groups]) for key in keys]
    return [(key, values) for key, values in rows if len({*values}) > 1]


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
    """Returns the table of `comparison` for a terminal, after the settings that differ. The metrics without some of the
    inputs are left out, and its caption says so."""
    columns, rows = comparison(groups)
    shown = [row for row in rows if "/without_" not in row[0]]
    left_out = f"metrics without some of the inputs, only in --output FILE.csv: {len(rows) - len(shown)}"
    table = Table(*columns, caption=left_out if len(shown) < len(rows) else None, caption_justify="left")
    for key, values in differing_settings(groups):
        table.add_row(printable(key), *map(printable, values), *[""] * (len(groups) - 1), style="dim")
    table.add_section()
    for metric, cells in shown:
        table.add_row(metric, *map(spread, cells))
    return table


def comparison(groups: Sequence[Group]) -> tuple[list[str], list[tuple[str, list[list[float]]]]]:
    """Returns (names of the columns, rows), with one row (metric, cells) per shared metric. The columns are: the
    metric; for each group the last values of all seeds; then, for each group except the first, the differences from the
    first group (see `paired`)."""
    names, rows = [group.name for group in groups], []
    for metric in shared_metrics(groups):
        values = [group.last(metric) for group in groups]
        differences = [paired(values[0], group_values) for group_values in values[1:]]
        rows.append((metric, [*(list(each.values()) for each in values), *differences]))
    return ["metric", *names, *(f"{name} - {names[0]}" for name in names[1:])], rows


def write_comparison(groups: Sequence[Group], file: Path) -> None:
    """Write the comparison as a table: `.csv` (one row per metric and column, with mean, standard deviation and number
    of seeds), `.md` (Markdown) or `.tex` (LaTeX). Raises DataError for another ending, OSError if the file cannot be
    written."""
    ending, (columns, rows) = ending_of(file, TABLES), comparison(groups)
    if ending == ".csv":
        with row_file(file, errors=False) as write:
            for metric, cells in rows:
                for name, values in zip(columns[1:], cells, strict=True):
                    std = statistics.stdev(values) if len(values) > 1 else None
                    mean = statistics.mean(values)
                    write([{"metric": metric, "runs": name, "mean": mean, "std": std, "seeds": len(values)}])
        return
    texts = [columns, *([metric, *map(spread, cells)] for metric, cells in rows)]
    lines = latex_lines(texts) if ending == ".tex" else markdown_lines(texts)
    write_text(file, "\n".join([*lines, ""]))


def markdown_lines(texts: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table. The first row is the header."""
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in texts]
    return [lines[0], "| --- " + "| ---: " * (len(texts[0]) - 1) + "|", *lines[1:]]


LATEX = {character: f"\\{character}" for character in "_%&#${}"} | {
    "±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}",
}  # fmt: skip
"""The LaTeX code of characters that have a meaning in LaTeX."""


def latex_lines(texts: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a LaTeX table (package booktabs). The first row is the header."""
    lines = [" & ".join("".join(LATEX.get(c, c) for c in text) for text in row) + r" \\" for row in texts]
    head = rf"\begin{{tabular}}{{l{'r' * (len(texts[0]) - 1)}}}"
    return [head, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}"]


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


def is_curve(groups: Sequence[Group], metric: str) -> bool:
    """Returns whether a metric has several points, and not always the same value."""
    curves = [of_seed[metric] for group in groups for of_seed in group.curves.values() if metric in of_seed]
    return any(len(curve) > 1 for curve in curves) and len({value for curve in curves for _, value in curve}) > 1


def main_curves(groups: Sequence[Group], most: int = 9) -> list[str]:
    """Returns the metrics that are worth a curve, at most `most`: the training loss, the metrics that select the best
    checkpoints, and the other main metrics of the tasks. Metrics with a single point, with one value in all runs or
    with only integer values, such as `val/judged`, are left out."""
    possible = "train/loss", *shared_metrics(groups)
    last = {name: [value for group in groups for value in group.last(name).values()] for name in possible}
    curved = [name for name, values in last.items()
              if any(isinstance(value, float) for value in values) and is_curve(groups, name)]  # fmt: skip
    bests = [group.best for group in groups]
    ordered = [name for name in ("train/loss", *bests) if name in curved]
    return list(dict.fromkeys([*ordered, *main_metrics(curved, bests[0])]))[:most]


def mean_curve(curves: Sequence[Curve]) -> tuple[list[int], list[float], list[float]]:
    """Returns (steps, means, standard deviations) of the curves of several seeds. At a step that only some seeds have,
    the mean is over these."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for step, value in curve:
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    deviations = [statistics.stdev(values[step]) if len(values[step]) > 1 else 0.0 for step in steps]
    return steps, [statistics.mean(values[step]) for step in steps], deviations


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
                draw_group(panel, [curves[metric] for curves in group.curves.values() if metric in curves],
                           LINES[number % len(LINES)])  # fmt: skip
            panel.set(title=printable(metric), xlabel="step")
            panel.grid()
        names = [printable(group.name) + seeds_of(group) for group in groups]
        lines = [
            Line2D([], [], color=LINES[number % len(LINES)], label=f" {name}") for number, name in enumerate(names)
        ]
        figure.legend(handles=lines, loc="outside lower center", ncols=min(len(names), 4))

    write_bytes(file, picture(draw, (4.2 * columns, 3 * rows + 0.3), file.suffix.lower()[1:]))


def seeds_of(group: Group) -> str:
    """Returns ` (3 seeds)` for a group of several runs, else an empty text."""
    return f" ({len(group.curves)} seeds)" if len(group.curves) > 1 else ""


def draw_group(panel: Any, curves: Sequence[Curve], colour: str) -> None:
    """Draws the curves of all seeds of a group on matplotlib's Axes `panel`."""
    steps, means, deviations = mean_curve(curves)
    panel.plot(steps, means, color=colour, linewidth=1.8, marker="o" if len(steps) == 1 else None, markersize=5)
    if len(curves) > 1:
        low, high = ([mean + sign * d for mean, d in zip(means, deviations)] for sign in (-1, 1))
        panel.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        for curve in curves:
            panel.plot(*zip(*curve), color=colour, linewidth=0.6, alpha=0.5)
