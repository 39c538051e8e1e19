"""A report on the predictions for a split: tables as CSV files, pictures, and one page with all of them and the worst
answers.

    report/val.html                   the page
    report/val-digit-classes.csv      a table of the task `digit`
    report/val-digit-confusion.png    a picture
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..data.split import SampleSplit
from ..files import pictures
from ..files.printing import printable
from ..files.records import Record, read_record
from ..files.rows import row_file
from ..files.writing import make_folder, write_bytes, write_json, write_text
from ..tasks.measuring.report import Mistake, Picture, Reporter, Section, Table
from .answers import target_column
from .document import document, escaped, in_code
from .evaluator import TrainedRun
from .pages import Cell, cell_html
from .shown_answers import answer_cell, input_cells


class Calibrations(Record):
    """The file `calibration.json` of a run: values that its predictions use, such as temperatures."""

    step: int
    """The step of the weights with which the values were computed."""
    tasks: dict[str, dict[str, float]]
    """The values by task and name."""


CALIBRATION = "calibration.json"
DRAWN = 8
"""The number of the worst answers that are drawn; a drawing takes up to 0.3 seconds."""


class Report:
    """Collects the rows of a split (`Answers.rows`) for the tasks that have a reporter."""

    def __init__(self, trained: TrainedRun, title: str):
        self.trained, self.title, self.number, self.failed = trained, title, 0, 0
        self.reporters: dict[str, tuple[Reporter, str]] = {}
        for name, task in trained.tasks.items():
            column, reporter = target_column(trained, task), task.reporter()
            if reporter is not None and column is not None:
                self.reporters[name] = reporter, column

    def collected(
        self, groups: Iterable[list[dict[str, Any]]], numbers: Iterable[int]
    ) -> Iterator[list[dict[str, Any]]]:
        """Yields groups of rows unchanged, and adds them to the report. `numbers` are the numbers of their samples."""
        following = iter(numbers)
        for group in groups:
            for row in group:
                self.add(next(following), row)
            yield group

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """Adds the row of a sample."""
        self.number += 1
        self.failed += "error" in row
        targets = row.get("targets", {})
        for name, (reporter, column) in self.reporters.items():
            answer = row.get(name)
            if answer is not None and "error" not in answer and column in targets:
                reporter.add(number, row["key"], targets[column], answer)

    def sections(self, store: bool) -> dict[str, Section]:
        """Returns the report of each task by name. `store`: whether values are fitted for later predictions, because
        these are the samples of the run's validation split."""
        saved = read_calibration(self.trained)
        return {name: reporter.section(saved.get(name, {}), store) for name, (reporter, _) in self.reporters.items()}

    def write(
        self, folder: Path, name: str, split: SampleSplit, store: bool = False, within: Path | None = None
    ) -> list[str]:
        """Writes the report into a folder, with the page `NAME.html`, and with `store` the calibration into the folder
        of the run. Returns sentences for the terminal. Raises OSError if a file cannot be written."""
        sections = self.sections(store)
        make_folder(folder, within)
        parts = [html_of(name, task, section, self.trained, split, folder) for task, section in sections.items()]
        failed = f", {self.failed:,} of them without an answer" if self.failed else ""
        head = f"<p>{self.number:,} samples{failed}</p>"
        write_text(folder / f"{name}.html", document(self.title, [head, *parts]))
        stored = {task: dict(section.saved) for task, section in sections.items() if section.saved}
        if store and stored:
            write_json(self.trained.folder / CALIBRATION, {"step": self.trained.step, "tasks": stored})
        prefix = len(sections) > 1
        lines = [f"{task}: {line}" if prefix else line for task, s in sections.items() for line in s.lines]
        return [*map(printable, lines), f"report: {folder / f'{name}.html'}"]


def read_calibration(trained: TrainedRun) -> dict[str, dict[str, float]]:
    """Returns the stored values of the run's calibration by task. Returns nothing if there is no file, or if it belongs
    to the weights of another step."""
    if not os.path.isfile(trained.folder / CALIBRATION):
        return {}
    record = read_record(trained.folder / CALIBRATION, Calibrations)
    return record.tasks if record.step == trained.step else {}


def html_of(name: str, task: str, section: Section, trained: TrainedRun, split: SampleSplit, folder: Path) -> str:
    """Writes the tables and pictures of a task as files. Returns its part of the page."""
    parts = [
        f"<h2>{escaped(task)}</h2>",
        *(f"<p>{in_code(line)}</p>" for line in section.lines),
    ]
    if not section.samples:
        return "".join([*parts, "<p>No sample has an answer and a true value.</p>"])
    files = f"{name}-{file_name(task)}"
    figures = []
    for picture in section.pictures:
        content = drawn(picture)
        write_bytes(folder / f"{files}-{picture.name}.png", content)
        figures.append(cell_html(Cell(picture.title, ".png", content, is_plot=True)))
    parts.append(f"<div class=row>{''.join(figures)}</div>" if figures else "")
    for table in section.tables:
        with row_file(folder / f"{files}-{table.name}.csv", errors=False) as write:
            write([dict(zip(table.columns, row, strict=True)) for row in table.rows])
        parts.append(table_html(table, f"{files}-{table.name}.csv"))
    if section.worst:
        parts.append(f"<h3>The {len(section.worst)} worst answers</h3><div class=samples>")
        worst = enumerate(section.worst)
        parts += [mistake_html(trained, split, mistake, is_drawn=place < DRAWN) for place, mistake in worst]
        parts.append("</div>")
    return "".join(parts)


def file_name(text: str) -> str:
    """Returns a name with `_` instead of the characters that are not letters, digits, `-` or `_`."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)


def drawn(picture: Picture) -> bytes:
    """Returns a picture as PNG."""
    return pictures.picture(lambda figure: picture.draw(figure.subplots()), picture.size)


def table_html(table: Table, file: str) -> str:
    """Returns a table for a page, with a link to its file."""
    title = f"<h3>{escaped(table.title)}</h3>"
    note = f"<p>{in_code(table.note)}. <a href='{escaped(file)}'>{escaped(file)}</a></p>"
    shown = table.rows if table.shown is None else table.rows[: table.shown]
    if not shown:
        return title + note
    head = "".join(f"<th>{escaped(name)}</th>" for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(value_html, row))}</tr>" for row in shown)
    more = f"<p>{len(table.rows) - len(shown):,} more rows in the file</p>" if len(shown) < len(table.rows) else ""
    return f"{title}{note}<div class=scroll><table><tr>{head}</tr>{rows}</table></div>{more}"


def value_html(value: Any) -> str:
    """Returns a cell of a table: numbers are aligned to the right, and a missing value is a dash."""
    if value is None:
        return "<td class=number>–</td>"
    if isinstance(value, float):
        return f"<td class=number>{value:.4g}</td>"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"<td class=number>{value:,}</td>"
    return f"<td>{escaped(value)}</td>"


def mistake_html(trained: TrainedRun, split: SampleSplit, mistake: Mistake, is_drawn: bool) -> str:
    """Returns the inputs of a sample with a wrong answer, and a text. `is_drawn`: inputs that are neither pictures nor
    sounds are drawn, and an answer that consists of numbers is drawn as curves."""
    cells: list[Cell | None] = []
    with suppress(ValueError, OSError):
        cells = [*input_cells(trained, split, mistake.number, is_drawn)]
    if is_drawn:
        cells.append(answer_cell("prediction", mistake.answer, mistake.true))
    pictures = "".join(cell_html(cell) for cell in cells if cell)
    return f"<div class=sample>{pictures}<p>{escaped(mistake.key)}: {in_code(mistake.text)}</p></div>"
