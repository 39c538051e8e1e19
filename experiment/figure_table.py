"""Tables of figures: one row per metric, one column per run, setting or fold. A cell has a mean, its standard deviation
over several runs, and 95 % intervals over samples and over seeds. A terminal shows as many columns as fit below each
other, so no figure and no name is cut."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

from ..files.printing import one_line, printable
from ..files.rows import ending_of, row_file
from ..files.writing import write_text
from ..inference.intervals import Interval, of_seeds

ENDINGS = (".csv", ".md", ".tex")
"""The file extensions that `FigureTable.write` accepts."""
ROUNDING = 1e-9
"""An uncertainty that is smaller than this share of the figure is an error of rounding."""
DIGITS = 4
"""The number of significant digits of a figure without an uncertainty."""


@dataclass(frozen=True)
class Estimate:
    """The values of a metric, one for each of several runs with different seeds, and the intervals of their mean."""

    values: Sequence[float]
    over_samples: Interval | None = None
    """The interval if other samples were drawn; None: unknown."""
    has_seeds: bool = True
    """Whether the values are those of several seeds, so that their mean has an interval."""

    @property
    def mean(self) -> float:
        return mean(self.values)

    @property
    def std(self) -> float | None:
        """The standard deviation of several values; None for one value."""
        with np.errstate(invalid="ignore"):  # of infinite values
            return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def over_seeds(self) -> Interval | None:
        """The interval if other seeds were drawn; None for one value."""
        return of_seeds(self.values) if self.has_seeds and not self.is_count else None

    @property
    def is_count(self) -> bool:
        """Whether all values are the same integer, such as a number of items."""
        return isinstance(self.values[0], int) and len({*self.values}) == 1

    @property
    def lines(self) -> list[str]:
        """The figures as text: `0.912 ± 0.004 (3)`, `[0.891, 0.930]` (over samples), `{0.902, 0.922}` (over seeds). All
        of them have the same number of decimals: the uncertainty has two digits."""
        if self.is_count:
            return [f"{self.values[0]:,}"]
        decimals = decimals_of(self.mean, self.std, self.over_samples)
        first = figure(self.mean, decimals)
        if len(self.values) > 1:
            first += f" ± {figure(self.std, decimals)} ({len(self.values)})"
        lines = [first]
        if self.over_samples:
            lines.append(f"[{', '.join(figure(end, decimals) for end in self.over_samples)}]")
        if self.over_seeds:
            lines.append(f"{{{', '.join(figure(end, decimals) for end in self.over_seeds)}}}")
        return lines


def mean(values: Sequence[float]) -> float:
    """Returns the mean of some values: an integer if all are the same one."""
    with np.errstate(invalid="ignore"):  # of infinite values
        return values[0] if len({*values}) == 1 else float(np.mean(values))


def decimals_of(mean: float, std: float | None, interval: Interval | None) -> int | None:
    """Returns the number of decimals with which the smallest uncertainty of a mean has two digits; None without
    uncertainty."""
    sizes = [std] if std is not None else []
    sizes += [(interval.high - interval.low) / 4] if interval else []
    sizes = [size for size in sizes if math.isfinite(size) and size > ROUNDING * abs(mean)]
    return min(max(1 - math.floor(math.log10(min(sizes))), 0), 12) if sizes else None


def figure(value: float, decimals: int | None) -> str:
    """Returns a number with a number of decimals, or with four digits if it is None; `nan` and `inf` as such."""
    if not math.isfinite(value) or decimals is None:
        return f"{value:.{DIGITS}g}"
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if not float(text) else text


Row = tuple[str, Sequence[Estimate | None]]
"""The name of a metric, and its cells. None: no value, which is shown as `–`."""


@dataclass(frozen=True)
class FigureTable:
    """A table with one row per metric."""

    columns: Sequence[str]
    """The names of the columns after the first one, which has the names of the rows."""
    rows: Sequence[Row]
    captions: Sequence[str] = ()
    """Sentences about the figures: what the signs mean, and how intervals were computed."""
    title: str = ""
    settings: Sequence[tuple[str, Sequence[str]]] = field(default=())
    """Settings that differ between the columns: their names, and their values in the first columns."""

    def lines_of_captions(self) -> list[str]:
        """Returns the captions, after an explanation of the signs in the cells."""
        cells = [cell for _, row in self.rows for cell in row if cell]
        signs = []
        if any(len(cell.values) > 1 for cell in cells):
            signs.append("mean ± standard deviation (number of runs)")
        if any(cell.over_samples for cell in cells):
            signs.append("[ ]: 95 % interval over samples")
        if any(cell.over_seeds for cell in cells):
            signs.append("{ }: 95 % t interval over seeds")
        return [*(["; ".join(signs) + "."] if signs else []), *self.captions]

    def text_rows(self, separator: str) -> list[list[str]]:
        """Returns all rows as texts, first the names of the columns. `separator` stands between the lines of a cell."""
        settings = [[name, *values, *[""] * (len(self.columns) - len(values))] for name, values in self.settings]
        rows = [[name, *(separator.join(lines_of(cell)) for cell in row)] for name, row in self.rows]
        return [["metric", *self.columns], *settings, *rows]

    # ------------------------------------------------------------------------------------------------------ a terminal

    def blocks(self, width: int) -> Iterator[Table]:
        """Yields tables that are at most `width` characters wide: the first one with the first columns, and so on."""
        longest = width // 2 - 4
        header, *rows = [[printable(text) for text in row] for row in self.text_rows("\n")]
        rows = [[divided(name, longest), *cells] for name, *cells in rows]
        widths = [max(widest(row[index], longest) for row in (header, *rows)) for index in range(len(header))]
        first, count = 1, len(header)
        while first < count:
            end, total = first, widths[0] + 4
            while end < count and (end == first or total + widths[end] + 3 <= width):
                total += widths[end] + 3
                end += 1
            chosen = [0, *range(first, end)]
            columns = [Column(header[index], overflow="fold", width=widths[index]) for index in chosen]
            title = printable(self.title) if first == 1 and self.title else None
            table = Table(*columns, title=title, title_justify="left")
            for number, row in enumerate(rows):
                is_setting = number < len(self.settings)
                table.add_row(*(row[index] for index in chosen), style="dim" if is_setting else None,
                              end_section=is_setting and number + 1 == len(self.settings))  # fmt: skip
            yield table
            first = end

    def print(self, console: Console) -> None:
        """Prints the table and its captions."""
        for block in self.blocks(console.width):
            console.print(block)
        for line in self.lines_of_captions():
            console.print(printable(line), soft_wrap=not console.is_terminal)

    # ----------------------------------------------------------------------------------------------------------- files

    def write(self, file: Path) -> None:
        """Writes the table as `.csv` (one row per metric and column), `.md` (Markdown) or `.tex` (LaTeX). Raises
        DataError for another ending, OSError if the file cannot be written."""
        ending = ending_of(file, ENDINGS)
        if ending == ".csv":
            with row_file(file, errors=False) as write:
                for name, row in self.rows:
                    cells = zip(self.columns, row, strict=True)
                    write([csv_row(name, column, cell) for column, cell in cells if cell])
            return
        rows = self.text_rows(" ")
        lines = latex_lines(rows, self.lines_of_captions()) if ending == ".tex" else markdown_lines(rows)
        captions = [] if ending == ".tex" else ["", *map(in_markdown, self.lines_of_captions())]
        write_text(file, "\n".join([*lines, *captions, ""]))


def lines_of(cell: Estimate | None) -> list[str]:
    """Returns the lines of a cell."""
    return cell.lines if cell else ["–"]


def divided(name: str, longest: int) -> str:
    """Returns the name of a metric; one of more than `longest` characters has a line for each of its parts."""
    return name if cell_len(name) <= longest else name.replace("/", "/\n")


def widest(text: str, longest: int) -> int:
    """Returns the width of the widest part of a text that is not divided: a line of figures, or a word of a name of at
    most `longest` characters."""
    return max((min(cell_len(word), longest) for line in text.split("\n") for word in unbroken(line)), default=1)


def unbroken(line: str) -> list[str]:
    """Returns the parts between which a line may be broken. Figures (`0.9 ± 0.1 (3)`, `[0.8, 1.0]`) are not broken."""
    is_figure = line[:1] in "[{-0123456789ni" and any(sign in line for sign in ("±", "[", "{"))
    return [line] if is_figure else line.split() or [""]


def csv_row(name: str, column: str, cell: Estimate) -> dict[str, Any]:
    """Returns a cell as a row of a CSV file."""
    samples, seeds = cell.over_samples or (None, None), cell.over_seeds or (None, None)
    row = {
        "metric": printable(name),
        "runs": printable(column),
        "mean": cell.mean,
        "std": cell.std,
        "seeds": len(cell.values),
    }
    return row | {"low": samples[0], "high": samples[1], "seeds_low": seeds[0], "seeds_high": seeds[1]}


def markdown_lines(texts: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a Markdown table. The first row is the header."""
    lines = ["| " + " | ".join(map(in_markdown, row)) + " |" for row in texts]
    return [lines[0], "| --- " + "| ---: " * (len(texts[0]) - 1) + "|", *lines[1:]]


def in_markdown(text: str) -> str:
    """Returns a text as one line of Markdown in which no character has a meaning, neither in Markdown nor in HTML."""
    return re.sub(r"([\\`*_\[\]<>|~]|^#)", r"\\\1", one_line(text))


LATEX = {character: f"\\{character}" for character in "_%&#${}"} | {
    "±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "[": "{[}", "]": "{]}",
}  # fmt: skip
"""The LaTeX code of characters that have a meaning in LaTeX."""


def in_latex(text: str) -> str:
    """Returns a text as LaTeX code."""
    return "".join(LATEX.get(character, character) for character in one_line(text))


def latex_lines(texts: Sequence[Sequence[str]], captions: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a LaTeX table (package booktabs). The first row is the header; the captions are rows below
    the table."""
    lines = [" & ".join(map(in_latex, row)) + r" \\" for row in texts]
    head = rf"\begin{{tabular}}{{l{'r' * (len(texts[0]) - 1)}}}"
    notes = [
        rf"\multicolumn{{{len(texts[0])}}}{{p{{\linewidth}}}}{{\footnotesize {in_latex(line)}}} \\" for line in captions
    ]
    return [head, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", *notes, r"\end{tabular}"]
