"""The page of a run: `RUN/index.html`, written at the end of training and by `chopmix report RUN`. It contains the
curves, the contribution of each input, the report on the validation split, samples, the attention for one sample, and
the configuration with a description of each key."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.split import SampleSplit, spread
from ..files.pictures import COLOURS, LINES
from ..files.printing import printable
from ..files.reading import read_bytes, read_text
from ..files.records import read_record
from ..files.writing import write_text
from ..inference.baseline_table import Comparisons
from ..inference.document import bars, chart, document, escaped, section, table
from ..inference.evaluator import Result
from ..inference.evaluators.baselines import FILE as BASELINES
from ..inference.evaluators.report import ReportPage
from ..inference.explorer import colour_of
from ..inference.generate import Generating, joined, stream_prompts
from ..inference.pages import Cell, cell_html, draws, generated_rows
from ..inference.predict import stream_predictions
from ..inference.shown_answers import answer_cell, input_cells, short_text
from ..tasks.base import Task
from .changes import read_changes
from .compare import captions, curves_of, main_curves, mean_line
from .figure_table import Estimate, FigureTable, Row, mean
from .groups import Group, read_group
from .inspection import explorer_of
from .next_steps import as_argument
from .results import main_metrics
from .run import Run
from .run_names import name_of
from .run_sums import store_sums
from .settings.document import dumped_line
from .settings.reference import Described, described_keys
from .settings.registry import trusting
from .shown_sample import Choice, Shown, trained, true_text, true_value

SAMPLES = 12
"""The number of samples on a page."""
TABLE_ROWS = 30
"""The largest number of rows of a table of the report on a page."""
FRACTION = re.compile(r"-?\d+\.\d{6,}(e[+-]\d+)?")
"""A computed number in a CSV file. Shorter ones are not changed: they may be names of classes, such as `1.10`."""
SEED = 0
"""The seed of generated samples."""


class RunPage(ReportPage):
    """Writes the report, stores the sums of the samples of the validation split, and writes the page of the run."""

    def run(self, trained, say):
        """A page that cannot be written does not end the training with an error."""
        report = super().run(trained, say)
        store_sums(trained, trained.open("val", say=lambda text: None), self.generated)
        file = trained.folder / "index.html"
        try:
            write_run_page(trained, file)
        except (ValueError, OSError) as error:
            return Result(lines=[*report.lines, f"{file} is not written: {error}"])
        return Result(lines=[*report.lines, f"page: {file}"])


def write_run_page(run: Run, file: Path, group: Group | None = None) -> None:
    """Writes the page of a run. `group`: its curves and figures; None: they are read. Raises OSError if the file cannot
    be written."""
    group = group or read_group(run.folder, run.trust)
    body = [
        f"<p class=soft>{escaped(run.name)}</p>", *(f"<p>{escaped(line)}</p>" for change in read_changes(run.folder)
                                                    for line in change.lines()),
        section("Results", *results(run, group), anchor="results"), *baseline_section(run),
        *curve_section(group), *bits_section(run, group), *report_section(run), *look_sections(run),
        section("The configuration", configuration(run), anchor="configuration"),
    ]  # fmt: skip
    write_text(file, printable(document(name_of(run.folder), body, "explorer.js" if run.has_dataset else "")))


def look_sections(run: Run) -> list[str]:
    """Returns samples of a run and the attention for one of them; nothing for an imported run."""
    return [*sample_section(run), *attention_section(run)] if run.has_dataset else []


def results(run: Run, group: Group) -> list[str]:
    """Returns the number of parameters, the precision, and the main metrics of the loaded checkpoint with intervals;
    next to them those of the last step, if this is another one."""
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    ((_, member),), (curves,) = group.members.items(), group.curves.values()
    metrics, last = member.figures.metrics, member.figures.last
    last_step = max((step for curve in curves.values() for step, _ in curve), default=run.step)
    columns = [f"{run.which} checkpoint, step {run.step:,}"]
    columns += [f"last step, {last_step:,}"] if last_step != run.step else []
    rows: list[Row] = []
    for name in ["train/loss", *main_metrics(metrics, group.best)]:
        line = dict(curves.get(name, ()))
        values = [metrics.get(name, line.get(run.step)), last.get(name, line.get(last_step))]
        cells = [
            None if value is None else Estimate([value], group.intervals.values.get(name) if index == 0 else None)
            for index, value in enumerate(values[: len(columns)])
        ]
        rows.append((name, cells))
    sizes = f"<p>{parameters:,} parameters, {escaped(run.precision)}.</p>"
    return [sizes, figures_html(FigureTable(columns, rows, captions([group])))]


def figures_html(figures: FigureTable) -> str:
    """Returns a table of figures with its captions."""
    header, *texts = figures.text_rows("\n")
    rows = [[escaped(text).replace("\n", "<br>") for text in row] for row in texts]
    notes = "".join(f"<p class=soft>{escaped(line)}</p>" for line in figures.lines_of_captions())
    return table(header, rows, figures.title, len(figures.columns)) + notes


def baseline_section(run: Run) -> list[str]:
    """Returns the comparison with simple models, if the run has one."""
    file = run.folder / "report" / BASELINES
    if not os.path.isfile(file) or file.parent.is_symlink():
        return []
    parts = []
    for each in read_record(file, Comparisons).comparisons:
        rows = [[escaped(cell) for cell in cells] for cells in each.cells()]
        notes = "".join(f"<p class=soft>{escaped(line)}</p>" for line in each.remarks)
        title = f"{each.task}: {each.metric} on {each.samples:,} samples of {each.split}"
        parts += [f"<p>{escaped(each.sentence)}</p>", table(each.header, rows, title, 4), notes]
    return [section("Compared with simple models", *parts, anchor="baselines")]


def curve_section(group: Group) -> list[str]:
    """Returns a chart for each main metric: the mean over all seeds, with a band of one standard deviation."""
    charts = []
    for metric in main_curves([group]):
        charts.append(chart({metric: mean_line(curves_of(group, metric))}, {metric: LINES[0]}, "step", metric))
    note = f"<p class=soft>Mean of {len(group.curves)} runs, and one standard deviation.</p>" * (len(group.curves) > 1)
    return [section("Curves", note, f"<div class=row>{''.join(charts)}</div>", anchor="curves")] if charts else []


def bits_section(run: Run, group: Group) -> list[str]:
    """Returns bars with how many bits each input contributes, for each task for which the run measured it."""
    parts: dict[str, dict[str, float]] = {}
    names = {name for member in group.members.values() for name in member.figures.metrics}
    for name in sorted(names, key=lambda name: [*run.model.inputs].index(name.rpartition("/")[2])
                       if name.rpartition("/")[2] in run.model.inputs else 99):  # fmt: skip
        prefix, kind, input = *name.rpartition("/")[0].rpartition("/")[::2], name.rpartition("/")[2]
        if kind in ("bits", "share_of_loss") and input in run.model.inputs and prefix.startswith("val"):
            parts.setdefault(f"{prefix}/{kind}", {})[input] = mean([*group.values(name).values()])
    colours = {name: COLOURS[colour_of(number)] for number, name in enumerate(run.model.inputs, start=1)}
    shown = [
        f"<div><h3>{escaped(name)}</h3>{bars(values, name.rpartition('/')[2].replace('_', ' '), colours)}</div>"
        for name, values in parts.items()
    ]
    text = (
        "<p>How much each input contributes to the prediction: by how many bits it raises the log-probability of the "
    )
    text += "true value, averaged over all orders of the inputs (Shapley values).</p>"
    return [
        section("What each input contributes", text, f"<div class=row>{''.join(shown)}</div>", anchor="bits")
    ] * bool(shown)


REPORTED = 100
"""The largest number of files of a report on the page."""


def report_section(run: Run) -> list[str]:
    """Returns the pictures and tables of `RUN/report`, with links to the complete report."""
    folder = run.folder / "report"
    if not os.path.isdir(folder) or folder.is_symlink():
        return []
    every = sorted(name for name in os.listdir(folder) if not (folder / name).is_symlink())
    names = [name for name in every if name.endswith((".png", ".csv", ".html"))][:REPORTED]
    pictures = [
        cell_html(Cell(name.removesuffix(".png"), ".png", read_bytes(folder / name), is_plot=True))
        for name in names
        if name.endswith(".png")
    ]
    tables = [csv_table(folder / name) for name in names if name.endswith(".csv")]
    links = " ".join(
        f"<a href='report/{escaped(name)}'>{escaped(name)}</a>" for name in names if name.endswith(".html")
    )
    if not pictures and not tables:
        return []
    return [section("The report on the validation split", f"<p>Complete, with the worst answers: {links}</p>",
                    f"<div class=row>{''.join(pictures)}</div>", *tables, anchor="report")]  # fmt: skip


def csv_table(file: Path) -> str:
    """Returns the first rows of a CSV file, folded, with four digits of each computed number."""
    rows = [*csv.reader(io.StringIO(read_text(file)))]
    if len(rows) < 2 or len(rows[0]) > 12:
        return ""
    cells = [
        [escaped(f"{float(cell):.4g}" if FRACTION.fullmatch(cell) else cell) for cell in row]
        for row in rows[1 : TABLE_ROWS + 1]
    ]
    more = f", the first {TABLE_ROWS} of {len(rows) - 1:,} rows" if len(rows) - 1 > TABLE_ROWS else ""
    return f"<details><summary>{escaped(file.name)}{more}</summary>{table(rows[0], cells)}</details>"


def text_section(run: Run) -> list[str]:
    """Returns a text that a run on a text corpus generates."""
    text = written(run)
    note = f"<p class=soft>Temperature 0.8, the 200 most likely tokens, seed {SEED}, without a prompt.</p>"
    return [section("A generated text", note, f"<pre>{escaped(text)}</pre>", anchor="samples")] if text else []


def generated_parts(run: Run, split: SampleSplit) -> list[str]:
    """Returns a table of generated items that are not texts."""
    with run.arithmetic():
        most = run.config.evaluation.sample_tokens or 1
        rows = generated_rows(run, split, seed=SEED, most=most, count=SAMPLES)
    cells = [[cell_html(cell, "pixels") for cell in row] for row in rows]
    return [f"<p class=soft>Generated with seed {SEED}.</p>", table([], cells)]


def sample_section(run: Run) -> list[str]:
    """Returns samples of the validation split: their inputs, and what the run predicts or generates next to the true
    values. For a text corpus: a generated text."""
    split = run.open("val")
    if not split.answerable:
        return text_section(run)
    parts = generated_parts(run, split) if any(map(draws, run.tasks.values())) else []
    others = {name: task for name, task in run.tasks.items() if not draws(task)}
    if others:
        parts += [f"<div class=samples>{''.join(predicted(run, split, others))}</div>"]
    return [section("Samples of the validation split", *parts, anchor="samples")]


def predicted(run: Run, split: SampleSplit, tasks: Mapping[str, Any]) -> Iterator[str]:
    """Yields samples with their inputs, predictions and true values, spread evenly over a split."""
    indices = spread(split.all(), SAMPLES)
    samples = split.samples
    with run.arithmetic():
        answers = next(stream_predictions(replace(run, tasks=tasks), split, [indices]))
    for index in indices:
        try:
            cells = input_cells(run, split, index.number)
        except (ValueError, OSError):
            continue
        shown = Shown(title="", config=run.config, split=split, index=index, model=run.model, choppers=run.choppers,
                      tasks=run.tasks, batch=None)  # fmt: skip
        lines = [verdict(name, answers[index.number].get(name), task, shown) for name, task in tasks.items()]
        yield (f"<div class=sample>{''.join(cell_html(cell, 'pixels') for cell in cells)}{''.join(lines)}"
               f"<span class=soft>{escaped(samples.keys[index.number])}</span></div>")  # fmt: skip


def verdict(name: str, answer: Mapping[str, Any] | None, task: Task, shown: Shown) -> str:
    """Returns a prediction and the true value as curves or as a line."""
    if answer and (curves := answer_cell(name, answer, true_value(task, shown))):
        return cell_html(curves)
    true = true_text(task, shown)
    text = "no prediction" if answer is None else short_text(answer)
    said = answer and str(answer.get("class", answer.get("text", "")))
    mark = (
        ""
        if not true or not said
        else f" <span class={'good' if said == true else 'bad'}>{'✓' if said == true else '✗'}</span>"
    )
    of_true = f" (true: {escaped(true)})" if true and said != true else ""
    return f"<div>{escaped(name)}: <b>{escaped(text)}</b>{mark}{of_true}</div>"


def written(run: Run) -> str:
    """Returns a text that a run on a text corpus generates; empty if no task continues texts."""
    name = next((name for name, task in run.tasks.items() if task.needs.generates and not task.needs.encoder), None)
    if name is None:
        return ""
    how = Generating.of({"max_tokens": 200, "temperature": 0.8, "top_k": 200, "seed": SEED})
    with run.arithmetic():
        return joined(stream_prompts(run, name, [None], how, lambda line: None), 1)[0]


def attention_section(run: Run) -> list[str]:
    """Returns the explorer of the attention for the first validation sample."""
    shown = trained(run, Choice())
    interactive, remarks = explorer_of(shown).html()
    command = f"chopmix inspect {as_argument(name_of(run.folder), run.config)}"
    text = f"<p>{escaped(shown.key[:1].upper() + shown.key[1:])}. <code>{escaped(command)}</code> shows others.</p>"
    return [
        section("Attention", text, interactive, *(f"<p>{escaped(line)}</p>" for line in remarks), anchor="attention")
    ]


def configuration(run: Run) -> str:
    """Returns tables of the keys of the configuration with their values and descriptions: those that differ from the
    defaults, and, folded, all of them."""
    with trusting(run.trust):
        entries = [*described_keys(run.config.tree)]
    rows, changed = key_rows(entries), key_rows([entry for entry in entries if not entry.is_default])
    head = ["key", "value", "meaning"]
    complete = f"<details><summary>All {len(rows)} keys, with the defaults</summary>{table(head, rows)}</details>"
    return (
        f"<div class=keys><p>The keys whose values differ from the defaults:</p>{table(head, changed)}{complete}</div>"
    )


def key_rows(entries: Sequence[Described]) -> list[list[str]]:
    """Returns rows (key, value, meaning). A text that describes several keys stands in the row of the first one."""
    rows, first = [], {}
    for entry in entries:
        key = ".".join(entry.path)
        known = first.setdefault(entry.text, key) if entry.text else key
        text = entry.text if known == key else f"see `{known}`"
        rows.append([f"<code>{escaped(key)}</code>", f"<code>{escaped(value_text(entry.value))}</code>",
                     f"<span class=soft>{with_code(text)}</span>"])  # fmt: skip
    return rows


def with_code(text: str) -> str:
    """Returns a description as HTML, with the words in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def value_text(value: Any) -> str:
    """Returns a value as it is written in a YAML, in one line; a text without quotation marks."""
    return value if isinstance(value, str) else dumped_line(value)
