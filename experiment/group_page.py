"""The page of several runs, written by `chopmix report`: of the seeds of a configuration, of the folds of a
cross-validation, or of the settings of a sweep."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..files.pictures import LINES
from ..files.printing import printable
from ..files.writing import write_text
from ..inference.document import chart, document, escaped, section, table
from ..inference.evaluation import directions, larger_is_better
from .build import build_evaluators
from .compare import comparison, curves_of, main_curves, mean_line
from .figure_table import FigureTable, mean
from .folds import fold_table
from .groups import Group
from .results import main_metrics
from .run import Run
from .run_names import name_of
from .run_page import bits_section, configuration, figures_html, look_sections

SEVERAL = 12
"""The largest number of settings whose curves are drawn."""


def best_first(groups: Sequence[Group], run: Run) -> list[Group]:
    """Returns the settings of a sweep, sorted by the metric that selects the best checkpoint: the best setting first,
    settings without this metric last. `run` is one of the runs."""
    best = next((group.best for group in groups if group.best), "val/loss")
    known = directions(run.tasks, "val", build_evaluators(run.config.evaluation).values())
    sign = -1 if best in known and larger_is_better(best, known) else 1

    def order(group: Group) -> tuple[bool, float]:
        values = [*group.values(best).values()]
        value = mean(values) if values else float("nan")
        return value != value, sign * value

    return sorted(groups, key=order)


def write_group_page(folder: Path, groups: Sequence[Group], run: Run, file: Path) -> None:
    """Writes the page of several runs in a folder. `groups` are the settings; samples, attention and configuration are
    those of `run`, one of the runs of the first setting. Raises OSError if the file cannot be written."""
    first = groups[0]
    about = f"{len(groups)} settings, the best one first. " if len(groups) > 1 else ""
    body = [
        f"<p class=soft>{escaped(about + description_of(first))}</p>",
        *(section(title, figures_html(figures), anchor=anchor) for title, figures, anchor in tables(groups)),
        *curves_section(groups[:SEVERAL]), *bits_section(run, first),
        section("The runs", runs_table(folder, groups, file), anchor="runs"),
    ]  # fmt: skip
    if run.has_dataset:
        body.append(f"<p class=soft>Samples and attention of {escaped(run.name)}.</p>")
        body += look_sections(run)
    body.append(section(f"The configuration of {name_of(run.folder)}", configuration(run), anchor="configuration"))
    write_text(file, printable(document(name_of(folder), body, "explorer.js" if run.has_dataset else "")))


def description_of(group: Group) -> str:
    """Returns the number of seeds and folds of a group."""
    folds = [len(member.folds) for member in group.members.values()]
    seeds = f"{len(group.members)} {'folds' if any(m.is_fold for m in group.members.values()) else 'seeds'}"
    return f"{folds[0]} folds, {seeds}." if any(folds) else f"{seeds}."


def tables(groups: Sequence[Group]) -> list[tuple[str, FigureTable, str]]:
    """Returns the tables of the page with their headings and anchors: the settings next to each other, and the folds of
    the first setting."""
    compared = comparison(groups)
    kept = {*main_metrics([name for name, _ in compared.rows], groups[0].best)}
    rows = [row for row in compared.rows if row[0] in kept]
    columns = compared.columns if len(groups) > 1 else ["all runs"]
    found = [("Results", FigureTable(columns, rows, compared.captions, settings=compared.settings), "results")]
    if all(member.folds for member in groups[0].members.values()):
        name = f"The folds of {groups[0].name}" if len(groups) > 1 else "The folds"
        found.insert(len(groups) > 1, (name, fold_table(groups[0]), "folds"))
    return found


def curves_section(groups: Sequence[Group]) -> list[str]:
    """Returns a chart for each main metric, with a line for each setting: the mean over all runs, with a band of one
    standard deviation."""
    colours = {group.name: LINES[number % len(LINES)] for number, group in enumerate(groups)}
    charts = []
    for metric in main_curves(groups):
        lines = {group.name: mean_line(curves_of(group, metric)) for group in groups}
        charts.append(chart(lines, colours, "step", metric))
    note = f"<p class=soft>Mean of {len(groups[0].curves)} runs, and one standard deviation.</p>"
    return [section("Curves", note, f"<div class=row>{''.join(charts)}</div>", anchor="curves")] if charts else []


def runs_table(folder: Path, groups: Sequence[Group], file: Path) -> str:
    """Returns a table of all runs with the steps of their checkpoints and links to their pages."""
    rows = []
    for group in groups:
        for run in (folder for member in group.members.values() for folder in member.folders):
            page = run / "index.html"
            link = escaped(Path(os.path.relpath(page, file.absolute().parent)).as_posix())
            name = escaped(os.path.relpath(run, folder))
            rows.append([f"<a href='{link}'>{name}</a>" if page.is_file() else name])
    return table(["run"], rows)
