"""Trains one configuration several times: for several seeds (`--seeds 0,1,2`), for several values of settings
(`--sweep key=a,b`), and for several folds of the data (`--folds 5`, cross-validation).

Every run has a separate folder inside `out`. If the same command is repeated, finished runs are skipped and the stopped
run continues."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Column, Table

from ..data.processes import Processes
from ..files.printing import figure_text, plain_console
from ..files.records import read_json
from ..files.trust import NOTHING, Trust
from ..inference.evaluation import directions, larger_is_better
from .build import build_evaluators, choppers_and_tasks
from .folds import division_of, print_folds, write_predictions
from .jobs import Job, run_jobs
from .results import TABLE, RunResult, keep_result, main_metrics, short_setting
from .run import open_part
from .run_folder import RunError
from .settings.config import Config, load_config

Setting = tuple[str, ...]
"""The overrides of one combination of swept values, such as `("training.learning_rate=1e-3",)`."""
Train = Callable[[Config], tuple[dict[str, float], int]]
"""A function that trains a configuration and returns a summary and an exit status, such as `experiment.train.train`."""


@dataclass(frozen=True)
class Planned:
    """A run that is to be trained."""

    setting: Setting
    seed: int
    fold: int | None
    config: Config
    arguments: Sequence[str]
    """The arguments of `chopmix train` for this run."""

    @property
    def title(self) -> str:
        """The name of the run in messages: `learning_rate=1e-3 seed 0`."""
        swept = [short_setting(self.setting)] if self.setting else []
        return " ".join([*swept, f"seed {self.seed}", *([] if self.fold is None else [f"fold {self.fold}"])])


def train_several(options: argparse.Namespace, train: Train, trust: Trust = NOTHING) -> int:
    """Train every combination of the swept values with every seed and fold, then print the metrics, the best
    combination first. The result of each run is kept in `sweep.json` and `sweep.csv`. Returns the exit status; if a run
    has another status than 0, no more runs are trained. `options` has the attributes `config`, `overrides`, `seeds`,
    `sweep`, `folds`, `group`, `stratify`, `jobs`, `trust` and `remote`. Raises RunError if `seeds` or `sweep` does not
    have the required form, or if a column is named without `folds`."""
    base = load_config(options.config, options.overrides, trust)
    seeds = seeds_of(options.seeds) if options.seeds else [base.training.seed]
    runs = list(planned_runs(options, base, seeds, trust))
    is_first = Processes.start(base.training.device).is_first
    summaries: dict[int, dict[str, float]] = {}

    def finish(number: int, summary: dict[str, float]) -> None:
        run, summaries[number] = runs[number], summary
        if run.fold is not None and is_first:
            write_predictions(run.config, trust)
        if is_first:
            folder = Path(os.path.relpath(run.config.out, base.out)).as_posix()
            result = RunResult(folder=folder, setting=run.setting, seed=run.seed, fold=run.fold, metrics=summary)
            keep_result(Path(base.out), str(options.config), base.checkpoints.best, result)

    if options.jobs > 1:
        jobs = [Job(run.title, run.arguments, Path(f"{run.config.out}.log")) for run in runs]
        status = run_jobs(jobs, options.jobs, lambda number: finish(number, read_summary(runs[number].config)))
    else:
        status = train_in_turn(runs, train, finish)
    if not status and is_first:
        print_all(options, base, runs, summaries, seeds)
    return status


def train_in_turn(runs: Sequence[Planned], train: Train, finish: Callable[[int, dict[str, float]], None]) -> int:
    """Trains one run after another in this process. Returns the exit status of the first run that has not 0."""
    for number, run in enumerate(runs):
        summary, status = train(run.config)
        if status:
            return status
        finish(number, summary)
    return 0


def planned_runs(
    options: argparse.Namespace, base: Config, seeds: Sequence[int], trust: Trust
) -> Iterator[Planned]:  # fmt: skip
    """Yields all runs: for each setting, each seed and each fold."""
    division = division_of(options)
    folds = range(options.folds) if options.folds else [None]
    trusted = [f"--{name}={value}" for name in ("trust", "remote") for value in getattr(options, name)]
    for setting, seed, fold in itertools.product(settings_of(options.sweep or ()), seeds, folds):
        folder = folder_of(base.out, setting, seed if options.seeds else None, fold)
        of_fold = [] if fold is None else [*division, f"data.split.fold={fold}"]
        overrides = [*options.overrides, *of_fold, *setting, f"training.seed={seed}", f"out={folder}"]
        config = load_config(options.config, overrides, trust)
        yield Planned(setting, seed, fold, config, [str(options.config), *overrides, *trusted])


def read_summary(config: Config) -> dict[str, float]:
    """Returns the summary of a finished run."""
    return dict(read_json(Path(config.out) / "summary.json"))


def print_all(
    options: argparse.Namespace, base: Config, runs: Sequence[Planned], summaries: Mapping[int, dict[str, float]],
    seeds: Sequence[int],
) -> None:  # fmt: skip
    """Print the tables of all runs."""
    by_setting: dict[Setting, list[dict[str, float]]] = {}
    for number, run in enumerate(runs):
        by_setting.setdefault(run.setting, []).append(summaries[number])
    if options.folds and not options.sweep:
        print_folds(folder_of(base.out, (), None), by_setting[()], options.folds)
    else:
        print_results(runs[-1].config, by_setting, seeds, swept=bool(options.sweep))
    print(f"results: {base.out / TABLE}")


SHOWN = 6
"""The number of metrics in the table of a sweep. `sweep.csv` has all."""


def seeds_of(text: str) -> list[int]:
    """Returns the seeds in a text: [0, 1, 2] for `"0,1,2"`. Raises RunError for any other text than integers separated
    by commas."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise RunError(f"--seeds {text!r}: write integers separated by commas, such as 0,1,2") from None


def settings_of(sweeps: Sequence[str]) -> list[Setting]:
    """Returns all combinations of the swept values. Without sweeps, returns one empty combination.

        settings_of(["a=1,2", "b=x"])    # [("a=1", "b=x"), ("a=2", "b=x")]

    Commas inside brackets do not separate values: `a=[1,2],[3,4]` has two values. Raises RunError for a sweep that does
    not have the form KEY=VALUE,VALUE."""
    axes = []
    for sweep in sweeps:
        key, equals, values = sweep.partition("=")
        values = [value for value in split_at_commas(values) if value]
        if not equals or not values:
            raise RunError(f"--sweep {sweep!r}: write KEY=VALUE,VALUE, such as training.learning_rate=1e-3,3e-3")
        axes.append([f"{key}={value}" for value in values])
    return list(itertools.product(*axes))


def split_at_commas(text: str) -> list[str]:
    """Returns the parts of a text between its commas, except commas inside brackets: `[1,2],f(a,b)` becomes
    `["[1,2]", "f(a,b)"]`."""
    values, open_brackets = [""], 0
    for character in text:
        if character in "[{(":
            open_brackets += 1
        elif character in ")}]":
            open_brackets -= 1
        if character == "," and open_brackets <= 0:
            values.append("")
        else:
            values[-1] += character
    return values


def folder_of(base: Path, setting: Setting, seed: int | None, fold: int | None = None) -> Path:
    """Returns the folder of one run of a sweep: `base/learning_rate=1e-3,depth=6/seed-0/fold-2` for the setting
    `("training.learning_rate=1e-3", "model.depth=6")`, seed 0 and fold 2. If a value contains characters that are not
    allowed in file names, they are replaced, and a hash of the value is added, so two values never share a folder."""
    names = []
    for key, _, value in (override.partition("=") for override in setting):
        plain = re.sub(r"[^\w.=+-]", "_", value)
        code = "" if plain == value else f"-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
        names.append(f"{key.rpartition('.')[2]}={plain}{code}")
    parts = [",".join(names)] if names else []
    parts += [f"{name}-{number}" for name, number in (("seed", seed), ("fold", fold)) if number is not None]
    return Path(base, *parts)


def print_results(
    config: Config, summaries: Mapping[Setting, list[dict[str, float]]], seeds: Sequence[int], swept: bool
) -> None:
    """Print the mean and standard deviation of every metric over the seeds. If `swept`, print a table with one row per
    setting, the best first by `checkpoints.best`; settings with a NaN are last. `config` is the configuration of one of
    the runs. It is needed because the metrics of a task, and whether a larger value is better, may depend on what the
    task learned from the data (its classes)."""
    first = next(iter(summaries.values()))[0]
    names = [
        name
        for name in first
        if name not in ("step", "best_step") and all(name in run for runs in summaries.values() for run in runs)
    ]
    best = config.checkpoints.best
    if swept:
        names = main_metrics(names, best)[:SHOWN]
    if not swept:
        (runs,) = summaries.values()
        for name in names:
            values = [run[name] for run in runs]
            print(f"{name}: {spread(values, '+-')} (seeds {','.join(map(str, seeds))}: "
                  f"{', '.join(map(figure_text, values))})")  # fmt: skip
        return
    _, tasks = choppers_and_tasks(config, Path(config.out) / "assets", partial(open_part, trust=config.nested))
    larger = larger_is_better(best, directions(tasks, "val", build_evaluators(config.evaluation).values()))

    def order(setting: Setting) -> tuple[bool, float]:
        mean = statistics.mean(run[best] for run in summaries[setting])
        return math.isnan(mean), -mean if larger else mean

    table = Table(Column("setting", no_wrap=True), *names, title=f"sorted by {best}, best first", title_justify="left")
    for setting in sorted(summaries, key=order):
        table.add_row(
            short_setting(setting), *(spread([run[name] for run in summaries[setting]], "±") for name in names)
        )
    plain_console(width=None if plain_console().is_terminal else 240).print(table)


def spread(values: Sequence[float], sign: str) -> str:
    """Returns mean and standard deviation, such as `0.1234 ± 0.0050`. Returns only the mean if there is only one value,
    or if all values are the same integer. `sign` is the text between the two numbers."""
    mean = figure_text(statistics.mean(values))
    is_constant = len(values) == 1 or (isinstance(values[0], int) and len({*values}) == 1)
    return mean if is_constant else f"{mean} {sign} {statistics.stdev(values):.4f}"
