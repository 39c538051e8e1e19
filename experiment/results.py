"""The results of several runs of one configuration (sweeps, seeds, folds), which are kept in two files next to the
runs:

    runs/rates/sweep.json    what `chopmix compare runs/rates` reads
    runs/rates/sweep.csv     one row per run: its folder, the swept settings, seed, fold, metrics
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..files.reading import DataError, shown
from ..files.records import Record, read_record
from ..files.rows import row_file
from ..files.writing import make_folder, write_json

FILE, TABLE = "sweep.json", "sweep.csv"
FORMAT = 1


class RunResult(Record):
    """The result of one finished run."""

    folder: str
    """The folder of the run, relative to that of the file."""
    setting: tuple[str, ...]
    """The overrides of the swept settings: `("training.learning_rate=1e-3",)`."""
    seed: int
    fold: int | None
    metrics: dict[str, int | float]
    """The summary of the run: `step`, `seconds`, metrics."""


class Results(Record):
    """The results of all finished runs in a folder."""

    format: int
    config: str
    """The configuration file."""
    best: str
    """The metric that selects the best checkpoint (`checkpoints.best`)."""
    runs: tuple[RunResult, ...] = ()


def read_results(folder: Path) -> Results | None:
    """Returns the results in a folder, or None if it has none. Raises DataError if the file is damaged or has another
    format."""
    if not os.path.isfile(folder / FILE):
        return None
    results = read_record(folder / FILE, Results)
    if results.format != FORMAT:
        raise DataError(f"{folder / FILE} has format {results.format}; this version reads {FORMAT}")
    if twice := [name for name, count in Counter(run.folder for run in results.runs).items() if count > 1]:
        raise DataError(f"{folder / FILE}: the folder {shown(twice[0])} occurs twice; each run has its own")
    return results


def keep_result(base: Path, config: str, best: str, result: RunResult) -> None:
    """Adds the result of a finished run to the files in `base`, or replaces an earlier result of the same run. Results
    of runs whose folder no longer exists are removed."""
    earlier = read_results(base)
    others = [run for run in (earlier.runs if earlier else ()) if run.folder != result.folder]
    runs = [run for run in others if os.path.isdir(base / run.folder)] + [result]
    runs.sort(key=lambda run: (run.setting, run.seed, run.fold or 0))
    make_folder(base)
    results = Results(format=FORMAT, config=config, best=best, runs=tuple(runs))
    write_json(base / FILE, results.model_dump(mode="json"))
    with row_file(base / TABLE, errors=False) as write:
        write([row_of(run) for run in runs])


def row_of(run: RunResult) -> dict[str, object]:
    """Returns a run as a row of the table, with one column per swept key."""
    settings = dict(setting.split("=", 1) for setting in run.setting)
    fold = {} if run.fold is None else {"fold": run.fold}
    return {"folder": run.folder, **settings, "seed": run.seed, **fold, **run.metrics}


def main_metrics(names: Iterable[str], best: str) -> list[str]:
    """Returns the metrics that a table or picture shows if it cannot show all: `best`, the metric that selects the best
    checkpoint, first, then the others in their order, without the attribution of inputs and without counts."""
    minor = re.compile(
        r"/(bits|bits_per_token|share_of_loss|without_[^/]*)/|/(judged|chain_samples|accepted_compared)$"
    )
    chosen = [name for name in names if not minor.search(name) and not name.startswith(("train/", "data/"))]
    return sorted(chosen, key=lambda name: name != best)


def short_setting(setting: Sequence[str]) -> str:
    """Returns a setting with the last components of its keys: `learning_rate=1e-3 depth=6`."""
    pairs = (override.partition("=") for override in setting)
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, _, value in pairs)


def by_setting(runs: Iterable[RunResult]) -> Mapping[tuple[str, ...], Sequence[RunResult]]:
    """Returns runs by their setting, in their order."""
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.setting, []).append(run)
    return groups
