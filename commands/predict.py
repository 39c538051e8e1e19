"""`chopmix predict RUN --input NAME=VALUE | --data DATA`: predicts for samples, and prints one JSON line per sample or
writes a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..files.errors import UsageError
from .options.answers import add_answers, output_of, vectors_of
from .options.forecasts import add_picture, forecast
from .options.shared import DATA_HELP, add_checkpoint, add_inputs, add_search, load, parse_samples, search_options

if TYPE_CHECKING:
    from ..experiment.run import Run

HELP = "predict for samples: JSON lines, CSV or parquet"
SHOWN = 5
"""The number of probabilities of one answer that a terminal shows, the largest ones. Files and pipes receive all."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command, stdin=True)
    command.add_argument("--data", metavar="DATA", help=f"predict for all samples of {DATA_HELP}")
    command.add_argument("--split", metavar="S", help="train, val or test (the default) of --data or of the run's data")
    command.add_argument("--horizon", type=int, metavar="N", help="the same as `chopmix forecast RUN --horizon N`")
    add_picture(command)
    add_answers(command)
    command.add_argument(
        "--calibrated", action="store_true", help="calibrate probabilities, as the run's report fitted"
    )
    command.add_argument("--threshold", type=float, metavar="P", help="no class (null) if its probability is below P")
    add_search(command)
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if the predictions of all samples failed, 3 if some failed and `--strict` is set, else
    0."""
    from ..experiment.answers import Count, Shard, ahead_rows, questions_for
    from ..experiment.merge import record_of, write_record
    from ..files.printing import json_line, say_aside
    from ..files.rows import row_file

    if options.horizon is not None or options.picture is not None:
        check_forecast(options)
        return forecast(options)
    output, shard, count = output_of(options), Shard.of(options.shard), Count()
    if bool(options.input) == bool(options.data or options.split):
        raise UsageError(
            "pass either samples (--input NAME=VALUE) or a data set (--data DATA, or --split of the run's)"
        )
    if options.input and options.shard:
        raise UsageError("--shard divides a data set (--data); samples of --input cannot be divided")
    loaded, settings = load(options), search_options(options)
    loaded, title = loaded.searching(**settings), ""
    settings |= {"calibrated": True} if options.calibrated else {}
    if options.input:
        groups = rows_of_inputs(options.input, loaded, options.calibrated)
    else:
        questions = questions_for(loaded, options.data, options.split or "test", shard, options.calibrated)
        groups, title = ahead_rows(questions, loaded), questions.title
        say_aside(f"{loaded.name}; {title}: {len(questions.split):,} samples")
    if options.threshold is not None:
        check_threshold(options.threshold, loaded)
        settings |= {"threshold": options.threshold}
        groups = ([abstaining(row, options.threshold) for row in group] for group in groups)
    if output is None:
        for row in (row for group in count.counted(groups) for row in group):
            print(json_line(shortened(row) if sys.stdout.isatty() else row), flush=True)
    else:
        with row_file(output, vectors_of(loaded)) as write:
            for group in count.counted(groups):
                write(group)
        if options.shard:
            write_record(output, record_of(loaded, "predict", title, settings, shard, count.samples))
        say_aside(f"{output}: {count.samples:,} rows")
    return count.status(options.strict)


def check_forecast(options: argparse.Namespace) -> None:
    """Raises UsageError if an option of predictions is combined with --horizon."""
    if options.horizon is None:
        raise UsageError("--picture needs --horizon N")
    excluded = ("input", "split", "shard", "calibrated", "threshold", "strict")
    if unused := next((name for name in excluded if getattr(options, name)), ""):
        raise UsageError(f"--horizon forecasts from the end of a table, and cannot be combined with --{unused}")


def rows_of_standard_input(pairs: Sequence[str], run: Run, calibrated: bool) -> Iterable[list[dict[str, Any]]]:
    """Returns the rows of the samples on standard input, one group for each line."""
    from ..experiment.run import check_predicts
    from ..files.printing import say_aside

    if len(pairs) > 1:
        raise UsageError("--input - reads the samples from standard input; remove the other --input")
    run.check_heads()
    check_predicts(run, [], run.tasks)
    if calibrated:
        run.calibration()
    say_aside(f"{run.name}; reading JSON lines from standard input")
    return answered_lines(run, calibrated)


def rows_of_inputs(pairs: Sequence[str], run: Run, calibrated: bool) -> Iterable[list[dict[str, Any]]]:
    """Returns the rows of the samples of --input in groups: the raw inputs and the answers. For `-`, each line of
    standard input is a group, which is answered before the next line is read."""
    from ..experiment.run import check_predicts
    from ..files.printing import say_aside

    if "-" in pairs:
        return rows_of_standard_input(pairs, run, calibrated)
    samples = parse_samples(pairs, run)
    check_predicts(run, [*samples[0]], run.tasks)
    say_aside(run.name)
    return [[{**sample, **answer} for sample, answer in zip(samples, run.predict(samples, calibrated=calibrated))]]


def answered_lines(run: Run, calibrated: bool) -> Iterator[list[dict[str, Any]]]:
    """Yields a row for each line of standard input. Warns once of each input that a line lacks and no training sample
    lacked."""
    from ..files.printing import say_aside
    from ..inference.requests import unreliable

    warned: set[str] = set()
    for number, line in enumerate(sys.stdin, start=1):
        if not line.strip():
            continue
        row = answer_to_line(run, line, number, calibrated)
        if names := [name for name in run.never_missing(row.get("without", ())) if name not in warned]:
            say_aside(unreliable(names))
            warned |= {*names}
        yield [row]


def answer_to_line(run: Run, line: str, number: int, calibrated: bool) -> dict[str, Any]:
    """Returns the row for line `number` of standard input: a JSON mapping from inputs to values, and optionally `key`,
    which is returned with the answer. The row of a line that cannot be answered has only `error` (and `key`)."""
    from ..experiment.run import check_predicts
    from ..files.records import parse_json

    key: dict[str, Any] = {}
    try:
        sample = parse_json(line, f"line {number}")
        if isinstance(sample, Mapping) and "key" in sample and "key" not in run.choppers:
            key = {"key": sample["key"]}
            sample = {name: value for name, value in sample.items() if name != "key"}
        if isinstance(sample, Mapping):
            check_predicts(run, sample, run.tasks)
        return {**key, **run.predict([sample], say=lambda text: None, calibrated=calibrated)[0]}
    except ValueError as error:
        return {**key, "error": str(error)}


def check_threshold(threshold: float, run: Run) -> None:
    """Raises UsageError if a threshold is no probability, or if no task of the run predicts one class."""
    if not 0 < threshold <= 1:
        raise UsageError(f"--threshold must be a probability, more than 0 and at most 1, not {threshold:g}")
    if not any(task.calibrates for task in run.tasks.values()):
        raise UsageError(f"--threshold is for tasks that predict one class; {run.folder} has none")


def abstaining(row: Mapping[str, Any], threshold: float) -> dict[str, Any]:
    """Returns a row in which the class of an answer is None if its probability is below a threshold."""
    changed = {
        name: {**answer, "class": None}
        for name, answer in row.items()
        if isinstance(answer, dict) and "class" in answer and max(answer["probabilities"].values()) < threshold
    }
    return {**row, **changed}


def shortened(value: Any) -> Any:
    """Returns an answer as a terminal shows it: numbers have four decimals, and of more than SHOWN probabilities only
    the largest are shown."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [shortened(each) for each in value]
    if not isinstance(value, dict):
        return value
    probabilities = value.get("probabilities")
    if isinstance(probabilities, dict):
        largest = sorted(probabilities.items(), key=lambda pair: -pair[1])[:SHOWN]
        value = {**value, "probabilities": dict(largest)}
    return {name: shortened(each) for name, each in value.items()}
