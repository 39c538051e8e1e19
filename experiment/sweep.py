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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..data.processes import Processes
from ..files.errors import UsageError
from ..files.printing import wide_console
from ..files.trust import NOTHING, Trust
from ..inference.evaluation import directions, larger_is_better
from .build import build_evaluators, choppers_and_tasks
from .compare import captions, estimate_of, shared_metrics
from .figure_table import Estimate, FigureTable, Row, mean
from .figures import figures_of, summary_in
from .folds import check_stop, division_of, evaluate_fold, fold_table, join_predictions
from .groups import Group, groups_in
from .jobs import Job, run_jobs
from .results import TABLE, RunResult, keep_result, main_metrics, short_setting
from .run import load_run, open_part
from .run_sums import store_sums, stored_sums
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
    """Train every combination of the swept values with every seed and fold, then print the figures, those of the best
    combination first. The result of each run is kept in `sweep.json` and `sweep.csv`. Returns the exit status; if a run
    has another status than 0, no more runs are trained. `options` has the attributes `config`, `overrides`, `seeds`,
    `sweep`, `folds`, `inner`, `group`, `stratify`, `jobs`, `trust`, `remote` and `accept_data`. Raises UsageError if
    `seeds` or `sweep` does not have the required form, if a column is named without `folds`, or if the samples of a
    fold would end the training."""
    base = load_config(options.config, options.overrides, trust)
    seeds = seeds_of(options.seeds) if options.seeds else [base.training.seed]
    runs = list(planned_runs(options, base, seeds, trust))
    is_first = Processes.start(base.training.device).is_first
    hides = bool(options.sweep and options.inner)  # the samples of the folds are not read before a setting is chosen

    def finish(number: int) -> None:
        run = runs[number]
        if is_first:
            if run.fold is None:
                ensure_sums(run.config, trust)
            elif not hides:
                evaluate_fold(run.config, trust)
            keep_result(Path(base.out), str(options.config), base.checkpoints.best or "val/loss", result_of(run, base))

    if options.jobs > 1:
        jobs = [Job(run.title, run.arguments, Path(f"{run.config.out}.log")) for run in runs]
        status = run_jobs(jobs, options.jobs, finish)
    else:
        status = train_in_turn(runs, train, finish)
    if not status and is_first:
        print_all(options, base, runs, trust)
    return status


def ensure_sums(config: Config, trust: Trust) -> None:
    """Store the sums of the samples of a finished run, from which intervals are computed, if its training has not
    stored them."""
    folder = Path(config.out)
    if stored_sums(folder, "val", figures_of(folder).step) is None:
        run = load_run(folder, trust=trust.modules, remote=trust.hosts)
        store_sums(run, run.open("val", say=lambda text: None), config.evaluation.generated)


def result_of(run: Planned, base: Config) -> RunResult:
    """Returns the result of a finished run."""
    folder = Path(os.path.relpath(run.config.out, base.out)).as_posix()
    summary = summary_in(Path(run.config.out))
    ends = {name: summary[name] for name in ("step", "seconds", "best_step") if name in summary}
    metrics = ends | dict(figures_of(Path(run.config.out)).metrics)
    return RunResult(folder=folder, setting=run.setting, seed=run.seed, fold=run.fold, metrics=metrics)


def train_in_turn(runs: Sequence[Planned], train: Train, finish: Callable[[int], None]) -> int:
    """Trains one run after another in this process. Returns the exit status of the first run that has not 0."""
    for number, run in enumerate(runs):
        _, status = train(run.config)
        if status:
            return status
        finish(number)
    return 0


def planned_runs(
    options: argparse.Namespace, base: Config, seeds: Sequence[int], trust: Trust
) -> Iterator[Planned]:  # fmt: skip
    """Yields all runs: for each setting, each seed and each fold."""
    division = division_of(options)
    folds = range(options.folds) if options.folds else [None]
    flags = [f"--{name}={value}" for name in ("trust", "remote") for value in getattr(options, name)]
    flags += ["--accept-data"] * options.accept_data
    for setting, seed, fold in itertools.product(settings_of(options.sweep or ()), seeds, folds):
        folder = folder_of(base.out, setting, seed if options.seeds else None, fold)
        of_fold = [] if fold is None else [*division, f"data.split.fold={fold}"]
        overrides = [*options.overrides, *of_fold, *setting, f"training.seed={seed}", f"out={folder}"]
        config = load_config(options.config, overrides, trust)
        if fold is not None:
            check_stop(config)
        yield Planned(setting, seed, fold, config, [str(options.config), *overrides, *flags])


def number_of_runs(options: argparse.Namespace, base: Config, trust: Trust) -> str:
    """Returns how many runs `train_several` trains: `12 runs: 2 settings, 2 seeds, 3 folds`. Raises its errors."""
    seeds = seeds_of(options.seeds) if options.seeds else [base.training.seed]
    runs = list(planned_runs(options, base, seeds, trust))
    counts = {"setting": {run.setting for run in runs}, "seed": {run.seed for run in runs},
              "fold": {run.fold for run in runs}}  # fmt: skip
    parts = [f"{len(values)} {name}s" for name, values in counts.items() if len(values) > 1]
    return f"{len(runs)} run{'s' * (len(runs) > 1)}{': ' * bool(parts)}{', '.join(parts)}"


def print_all(options: argparse.Namespace, base: Config, runs: Sequence[Planned], trust: Trust) -> None:
    """Print the tables of all runs: of a sweep all settings, the best one first; of several seeds their mean; of a
    cross-validation all folds. With an inner division, only the folds of the chosen setting are evaluated."""
    console = wide_console()
    results, best = [result_of(run, base) for run in runs], base.checkpoints.best or "val/loss"
    groups = dict(zip(dict.fromkeys(run.setting for run in runs), groups_in(base.out, results, best, trust)))
    setting = runs[0].setting
    if options.sweep:
        order = sorted_settings(
            {each: [*group.values(best).values()] for each, group in groups.items()}, best, runs[0].config
        )
        sweep_table({short_setting(each): groups[each] for each in order}, best).print(console)
        setting = order[0]
    if options.folds and (options.inner or not options.sweep):
        chosen = [run for run in runs if run.setting == setting]
        for run in chosen:
            evaluate_fold(run.config, trust)
        (group,) = groups_in(base.out, [result_of(run, base) for run in chosen], best, trust)
        fold_table(group, short_setting(setting)).print(console)
        print(f"predictions: {join_predictions(base.out, [run.config for run in chosen])}")
    elif not options.sweep:
        seed_table(groups[setting]).print(console)
    print(f"results: {base.out / TABLE}")


def sweep_table(settings: Mapping[str, Group], best: str) -> FigureTable:
    """Returns the table of a sweep, with one column per setting, in this order."""
    groups = list(settings.values())
    rows = [
        (name, [estimate_of(group, name) for group in groups]) for name in main_metrics(shared_metrics(groups), best)
    ]
    notes = [*captions(groups), "The best setting was chosen on these samples, so its figures are optimistic."]
    return FigureTable([*settings], rows, notes, f"sorted by {best}, best first")


def seed_table(group: Group) -> FigureTable:
    """Returns the table of several seeds: the mean of each metric, and its value of each seed."""
    rows: list[Row] = [
        (name, [estimate_of(group, name), *(Estimate([value]) for value in group.values(name).values())])
        for name in group.metrics
    ]
    return FigureTable(["all seeds", *group.members], rows, captions([group]))


def sorted_settings(values: Mapping[Setting, Sequence[float]], best: str, config: Config) -> list[Setting]:
    """Returns the settings by the mean of their values of the metric `best`, the best one first; settings with a NaN
    are last. `config` is the configuration of one of the runs: whether a larger value is better may depend on what its
    tasks have learned from the data (their classes)."""
    _, tasks = choppers_and_tasks(config, Path(config.out) / "assets", partial(open_part, trust=config.nested))
    larger = larger_is_better(best, directions(tasks, "val", build_evaluators(config.evaluation).values()))

    def order(setting: Setting) -> tuple[bool, float]:
        value = mean(values[setting]) if values[setting] else math.nan
        return math.isnan(value), -value if larger else value

    return sorted(values, key=order)


def seeds_of(text: str) -> list[int]:
    """Returns the seeds in a text: [0, 1, 2] for `"0,1,2"`. Raises UsageError for any other text than integers
    separated by commas."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {text!r}: write integers separated by commas, such as 0,1,2") from None


def settings_of(sweeps: Sequence[str]) -> list[Setting]:
    """Returns all combinations of the swept values. Without sweeps, returns one empty combination.

        settings_of(["a=1,2", "b=x"])    # [("a=1", "b=x"), ("a=2", "b=x")]

    Commas inside brackets do not separate values: `a=[1,2],[3,4]` has two values. Raises UsageError for a sweep that
    does not have the form KEY=VALUE,VALUE."""
    axes = []
    for sweep in sweeps:
        key, equals, values = sweep.partition("=")
        values = [value for value in split_at_commas(values) if value]
        if not equals or not values:
            raise UsageError(f"--sweep {sweep!r}: write KEY=VALUE,VALUE, such as training.learning_rate=1e-3,3e-3")
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
