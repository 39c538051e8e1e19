"""`chopmix evaluate RUN`: computes metrics on all samples of a split, prints them and appends them to
`evaluations.jsonl` in the folder of the run. If a metric is computed on a part of the split, the number of samples is
printed:

    500 samples of parallel_text (val)
    val/second/loss 0.465812 [0.4421, 0.4889]
    val/second/chain 0.471385 (64 samples)

With `--report`, it also writes a page with the classes, the errors and the worst answers; with `--output`, the answer
to each sample and its loss. After the figures stand intervals of 95 % (`inference/intervals.py`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.errors import UsageError
from ..files.printing import wide_console
from .options.answers import add_answers, output_of, vectors_of
from .options.shared import DATA_HELP, add_checkpoint, add_search, load, search_options, with_output_hint

if TYPE_CHECKING:
    from ..data.base import Dataset
    from ..experiment.run import Run
    from ..inference.evaluation import Measured
    from ..inference.intervals import Intervals

HELP = "compute the metrics of a run on a complete split"
GENERATING = (
    ("--guidance", float, "W", "guidance weight of the inputs; default: the setting of the task"),
    ("--temperature", float, "T", "sampling temperature; default: the setting of the task"),
    ("--steps", int, "N", "number of refinement steps; default: the setting of the task"),
    ("--drafts", int, "N", "number of drafts to choose from; default: the setting of the task"),
)
"""Options for the generation of items: flag, type, metavar and help text."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--data", metavar="DATA", help=f"another data set: {DATA_HELP}")
    command.add_argument("--split", default="val", metavar="S", help="train, val (the default) or test")
    add_checkpoint(command)
    add_search(command)
    command.add_argument("--inputs", metavar="NAME,NAME", help="use only these inputs and those that are predicted")
    for flag, kind, metavar, text in GENERATING:
        command.add_argument(flag, type=kind, metavar=metavar, help=text)
    command.add_argument("--subsets", action="store_true", help="also measure how many bits each input contributes")
    command.add_argument(
        "--report", metavar="DIR", nargs="?", const="",
        help="write tables, pictures and the worst answers into this folder; default: RUN/report",
    )  # fmt: skip
    add_answers(command, "also write the answer to each sample: a .csv, .jsonl or .parquet file")
    command.add_argument("--json", metavar="FILE", help="also write the metrics to this file")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 3 if samples cannot be read and `--strict` is set, else 0."""
    from ..experiment.answers import Count, Shard, losses_by_number
    from ..experiment.merge import record_of, write_record
    from ..experiment.own_data import dataset_for
    from ..experiment.run_sums import intervals_of, keep_sums, sums_of
    from ..files.printing import say_aside
    from ..files.writing import write_json

    answers_file, shard = output_of(options), Shard.of(options.shard)
    generation = {name: getattr(options, name) for name in ("guidance", "temperature", "steps", "drafts")}
    loaded = load(options).searching(**search_options(options)).generating(**generation)
    dataset = dataset_for(loaded, options.data, options.split) if options.data else None
    inputs = checked_inputs(options)
    report_folder = folder_of(options.report, loaded.folder)
    title = (dataset or loaded.dataset()).title(options.split)
    if options.shard:
        dataset = shard.of_dataset(dataset or loaded.dataset(), options.split)
    say_aside(loaded.name)
    data = loaded.open(options.split, dataset)
    evaluation = loaded.measured(data, rows=64, inputs=inputs, detail="samples")
    sums = sums_of(loaded, data, evaluation)
    intervals = intervals_of(loaded, evaluation, sums)
    print_metrics(loaded, options, title, evaluation, intervals)
    record = {name: value for name, value in {"inputs": inputs, **generation}.items() if value not in (None, [])}
    record |= {"options": options.overrides} if options.overrides else {}
    record |= {"data": options.data or loaded.config.tree["data"]["dataset"], "split": options.split}
    record |= {"samples": evaluation.readable, "measured_on": evaluation.samples, **evaluation.metrics}
    record |= {"intervals": {name: list(interval) for name, interval in intervals.values.items()}}
    loaded.record(record, report_folder if options.report else None)
    changed = [inputs, *generation.values(), *search_options(options).values(), options.overrides or None]
    is_plain = is_own(loaded, options) and options.checkpoint == "best" and changed == [None] * len(changed)
    if report_folder or is_plain:
        keep_sums(loaded, sums, report_folder)
    if options.report is not None or answers_file:
        losses = losses_by_number(evaluation)
        write_answers(loaded, options.split, dataset, title, report_folder, answers_file, losses)
    count = Count(evaluation.readable + evaluation.bad, evaluation.bad)
    if options.shard:
        settings = {**generation, **search_options(options), "options": options.overrides or None}
        write_record(answers_file, record_of(loaded, "evaluate", title, settings, shard, count.samples))
    if options.subsets:
        figures, numbers = print_subsets(loaded, options.split, dataset)
        record, record["measured_on"] = record | figures, record["measured_on"] | numbers
    if options.json:
        write_json(Path(options.json), {"step": loaded.step, "checkpoint": loaded.which, **record})
    return count.status(options.strict)


def checked_inputs(options: argparse.Namespace) -> list[str] | None:
    """Returns the names of --inputs; None: all. Raises UsageError if options cannot be combined, or if the folder of
    --json does not exist."""
    if options.json and not os.path.isdir(Path(options.json).absolute().parent):
        raise UsageError(f"--json {options.json}: the folder {Path(options.json).parent} does not exist")
    if options.inputs is not None and (options.report is not None or options.output):
        raise UsageError("--inputs cannot be combined with --report and --output, which need all inputs")
    return options.inputs.split(",") if options.inputs is not None else None


def is_own(run: Run, options: argparse.Namespace) -> bool:
    """Returns whether all samples of a split of the run's data are evaluated."""
    return run.has_dataset and not options.data and not options.shard


def print_metrics(
    run: Run, options: argparse.Namespace, title: str, evaluation: Measured, intervals: Intervals
) -> None:  # fmt: skip
    """Prints the number of samples, the metrics with their intervals, and by what the checkpoint was chosen."""
    from ..experiment.figures import choice
    from ..files.printing import printable

    print(printable(f"{evaluation.readable:,} {evaluation.unit} of {title}"))
    for line in metric_lines(evaluation, intervals):
        print(printable(line))
    if run.has_dataset:
        chosen = run.config.checkpoints.best if run.which == "best" else None
        print(choice(chosen, is_own(run, options) and options.split == "val"))


def print_subsets(run: Run, split: str, dataset: Dataset | None) -> tuple[dict[str, float], dict[str, int]]:
    """Prints the metrics with subsets of the inputs. Returns them, and the numbers of samples."""
    from ..inference.evaluators.attribution import tables, truth_of

    figures: dict[str, float] = {}
    numbers: dict[str, int] = {}
    for name, attribution in run.attribution(split, dataset).items():
        truth = truth_of(run.wiring, dataset or run.dataset(), split, run.tasks[name], attribution.inputs)
        wide_console().print(*tables(name, attribution, truth), sep="\n")
        prefix = split if len(run.tasks) == 1 else f"{split}/{name}"
        figures, numbers = figures | attribution.figures(prefix), numbers | attribution.numbers(prefix)
    return figures, numbers


def metric_lines(evaluation: Measured, intervals: Intervals) -> Iterator[str]:
    """Yields a line for each metric, with its interval, and with the number of samples if it is measured on some of the
    samples; then the caption of the intervals."""
    for name, value in evaluation.metrics.items():
        number = evaluation.samples.get(name, evaluation.readable)
        count = f" ({number:,} {evaluation.unit})" if number != evaluation.readable else ""
        ends = f" [{', '.join(f'{end:.4g}' for end in intervals.values[name])}]" if name in intervals.values else ""
        yield f"{name} {value if isinstance(value, int) else f'{value:.6g}'}{ends}{count}"
    yield intervals.caption()


def folder_of(report: str | None, run: Path) -> Path | None:
    """Returns the folder of the report, which is created; None without --report. Raises UsageError if `RUN/report` is a
    link: the run may come from elsewhere."""
    from ..experiment.run_names import output_folder
    from ..files.writing import make_folder

    if report is None:
        return None
    folder = Path(report) if report else output_folder(run) / "report"
    if not report and folder.is_symlink():
        raise UsageError(f"{folder} is a link; name another folder: --report DIR")
    with with_output_hint("--report DIR"):
        make_folder(folder)
    return folder


def write_answers(
    run: Run, split: str, dataset: Dataset | None, title: str, folder: Path | None, file: Path | None,
    losses: Mapping[str, Mapping[int, float]],
) -> None:  # fmt: skip
    """Predicts for all samples of a split; writes the answers into `file`, with the `losses` of all tasks by number of
    the sample, and a report into `folder`."""
    from ..experiment.answers import ahead_rows
    from ..experiment.run import write_sheet
    from ..experiment.run_names import is_contained
    from ..files.printing import say_aside
    from ..files.rows import row_file
    from ..inference.answers import Answers
    from ..inference.report import Report

    data = run.open(split, dataset, say=lambda text: None)  # the evaluation has named the bad samples
    if not data.answerable:
        raise UsageError(f"{title} is a text corpus, which has no samples to answer; remove --report and --output")
    report = Report(run, f"{run.name}: {title}")
    division = run.config.data.split
    answers = Answers(
        trained=run, split=data, samples=data.samples, group=division.group if division else None, losses=losses
    )
    groups = report.collected(ahead_rows(answers, run), range(len(data)))
    with row_file(file, vectors_of(run)) if file else nullcontext(len) as write:
        for group in groups:
            write(group)
    if file:
        say_aside(f"{file}: {report.number:,} rows")
    if folder is not None:
        store = dataset is None and split == "val" and not is_contained(run.folder)
        for line in report.write(folder, split, data, store):
            say_aside(line)
        if write_sheet(run, data, folder / f"{split}-samples.html"):
            say_aside(f"generated items: {folder / f'{split}-samples.html'}")
