"""Groups of runs that are compared: a run, all seeds of a configuration, the folds of a cross-validation, the settings
of a sweep. A group is read from the folders of its runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ..files.errors import RunError
from ..files.progress import counted
from ..files.reading import DataError
from ..files.trust import NOTHING, Trust
from ..inference.intervals import Interval, Intervals, RunSums, Units, difference_intervals, on_split, split_intervals
from ..inference.sample_sums import About, SplitSums, TaskSums, stacked
from ..tasks.base import Task
from ..training.log import read_metrics
from .build import choppers_and_tasks
from .figure_table import mean
from .figures import Figures, choice, figures_of
from .results import FILE, RunResult, by_setting, read_results, short_setting
from .run import open_part
from .run_folder import read_config
from .run_names import name_of
from .run_sums import stored_sums
from .settings.document import ConfigError, Document

Curve = list[tuple[int, float]]
"""(step, value) pairs in the order of the steps."""


@dataclass(frozen=True)
class Fold:
    """The results of a fold on its own samples."""

    metrics: Mapping[str, float]
    samples: Mapping[str, int]
    """The number of samples with a target, by task."""


@dataclass(frozen=True)
class Member:
    """One seed of a group: a run, or the runs of all folds of a cross-validation."""

    folders: tuple[Path, ...]
    """The folder of the run, or of each fold."""
    split: str
    """The split of the metrics: `val`, or `test` for the folds of a cross-validation with an inner division."""
    figures: Figures
    """The figures of the run; of several folds, those of all samples."""
    sums: RunSums | None = None
    """The sums by sample; None: the run has none."""
    keys: Sequence[str] = ()
    """The keys of the samples."""
    units: Sequence[Any] | None = None
    """The unit of each sample (see `SplitSums.units`)."""
    about: About | None = None
    why: str = ""
    """Why the run has no sums by sample."""
    folds: Mapping[str, Fold] = field(default_factory=dict)
    """The results of the folds by name; empty for a run."""
    is_fold: bool = False
    """Whether this is only one fold of a cross-validation: the folds of a seed are not independent runs."""

    def on(self, keys: Mapping[str, int]) -> RunSums:
        """Returns the sums of the samples with these keys, numbered by `keys`."""
        positions = {number: keys[key] for number, key in enumerate(self.keys) if key in keys}
        return replace(self.sums, sums={name: sums.select(positions) for name, sums in self.sums.sums.items()})


@dataclass(frozen=True)
class Group:
    """Runs of one configuration with different seeds (`RUN/seed-0`, `RUN/seed-1`, ...), or one run."""

    name: str
    curves: Mapping[str, Mapping[str, Curve]]
    """The curves by run, then by metric: `{"seed-0": {"val/loss": [(250, 1.9), (500, 1.7)]}}`. For a single run the key
    is `run`."""
    members: Mapping[str, Member] = field(default_factory=dict)
    """The seeds by name: `seed-0`, or `run` for a single run."""
    best: str = ""
    """The metric that selects the best checkpoint."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The configuration of the first run: `{"training.steps": 900}`."""

    def values(self, metric: str) -> dict[str, float]:
        """Returns the values of a metric by seed. Seeds without this metric are omitted."""
        figures = {name: member.figures.metrics for name, member in self.members.items()}
        return {name: metrics[metric] for name, metrics in figures.items() if metric in metrics}

    @cached_property
    def metrics(self) -> dict[str, None]:
        """The metrics that all seeds have, in the order of the first seed."""
        every = [member.figures.metrics for member in self.members.values()]
        return dict.fromkeys(name for name in every[0] if all(name in metrics for metrics in every))

    @property
    def has_seeds(self) -> bool:
        """Whether the members are independent runs with several seeds."""
        return len(self.members) > 1 and not any(member.is_fold for member in self.members.values())

    @property
    def split(self) -> str:
        return next(iter(self.members.values())).split

    @property
    def why(self) -> str:
        """Why the group has no intervals; empty if it has."""
        return next((member.why for member in self.members.values() if member.sums is None), "")

    @property
    def choice(self) -> str:
        """A sentence: on which samples the checkpoints were chosen."""
        return choice(self.best, self.split == "val", self.settings.get("data.split.inner"))

    @cached_property
    def keys(self) -> dict[str, int]:
        """The keys of the samples that all seeds have, each with a number."""
        shared = set.intersection(*(set(member.keys) for member in self.members.values()))
        first = next(iter(self.members.values())).keys
        return {key: number for number, key in enumerate(key for key in first if key in shared)}

    def units_of(self, keys: Mapping[str, int]) -> Units:
        """Returns the units of the samples with these keys."""
        member = next(iter(self.members.values()))
        labels = dict(zip(member.keys, member.units, strict=True)) if member.units is not None else None
        return Units(None if labels is None else [labels[key] for key in keys], len(keys), member.about)

    @cached_property
    def intervals(self) -> Intervals:
        """The intervals of the means over all seeds."""
        if self.why:
            return Intervals({}, (), dict.fromkeys(self.metrics, self.why))
        means = {name: mean([*self.values(name).values()]) for name in self.metrics}
        runs = [member.on(self.keys) for member in self.members.values()]
        return split_intervals(self.split, runs, means, self.units_of(self.keys))

    def minus(self, first: Group) -> dict[str, Interval]:
        """Returns the intervals of the differences of all metrics from those of another group, on the samples that both
        have; empty if they have none in common."""
        shared = [key for key in first.keys if key in self.keys] if not (self.why or first.why) else []
        if not shared or self.split != first.split:
            return {}
        keys = {key: number for number, key in enumerate(shared)}
        runs = [[member.on(keys) for member in group.members.values()] for group in (first, self)]
        return difference_intervals(self.split, *runs, first.units_of(keys))


def read_groups(folders: Sequence[Path], trust: Trust = NOTHING) -> list[Group]:
    """Returns the groups in some folders: runs, folders of seeds, cross-validations, and sweeps, with one group for
    each setting of a sweep. The names are shortened to what differs. Runs that need code outside of chopmix have
    intervals only if `trust` allows this code. Raises RunError if a folder has no runs, DataError if a file is
    damaged."""
    groups = [group for folder in counted(folders, "folders") for group in groups_of(folder, trust)]
    return [replace(group, name=name) for group, name in zip(groups, short_names([group.name for group in groups]))]


def groups_of(folder: Path, trust: Trust = NOTHING) -> list[Group]:
    """Returns the groups of one folder."""
    results = read_results(folder)
    return [read_group(folder, trust)] if results is None else groups_in(folder, results.runs, results.best, trust)


def groups_in(folder: Path, runs: Sequence[RunResult], best: str, trust: Trust = NOTHING) -> list[Group]:
    """Returns the results of a sweep, of several seeds or of a cross-validation as groups, one for each setting.
    `best`: the metric that selects the best checkpoint, for runs without a readable configuration. If the folds of only
    some settings were evaluated, the figures of all settings are those of the inner validation samples."""
    groups = []
    for setting, of_setting in by_setting(runs).items():
        name = f"{name_of(folder)}/{short_setting(setting)}" if setting else name_of(folder)
        groups.append(group_of(name, folder, of_setting, trust, best))
    if len({group.split for group in groups}) > 1:
        return [group if group.split == "val" else on_inner(group) for group in groups]
    return groups


def on_inner(group: Group) -> Group:
    """Returns a cross-validation with an inner division as a group of all its folds, with the figures on the inner
    validation samples."""
    folders = [folder for member in group.members.values() for folder in member.folders]
    common = os.path.commonpath(folders) if len(folders) > 1 else folders[0].parent
    return replace(group, members={os.path.relpath(each, common): inner_member(each) for each in folders})


def inner_member(folder: Path) -> Member:
    """Returns the run of a fold with the figures on its inner validation samples."""
    return Member((folder,), "val", figures_of(folder), why="the validation samples of the folds overlap", is_fold=True)


def several_in(folder: Path) -> bool:
    """Returns whether a folder contains several runs of one configuration: of a sweep, of several seeds or folds."""
    patterns = ("seed-*/metrics.jsonl", "fold-*/metrics.jsonl", "seed-*/fold-*/metrics.jsonl")
    has_runs = os.path.isdir(folder) and any(next(folder.glob(pattern), None) for pattern in patterns)
    return has_runs or os.path.isfile(folder / FILE)


def read_group(folder: Path, trust: Trust = NOTHING) -> Group:
    """Returns a run, or all seeds or folds in a folder without results of a sweep. Raises RunError if there is no
    `metrics.jsonl`, DataError if such a file is damaged."""
    found = [
        RunResult(folder=file.parent.relative_to(folder).as_posix(), setting=(), seed=0, fold=None, metrics={})
        for pattern in ("seed-*/metrics.jsonl", "fold-*/metrics.jsonl", "seed-*/fold-*/metrics.jsonl")
        for file in (sorted(folder.glob(pattern)) if os.path.isdir(folder) else ())
    ]
    if not found and not os.path.exists(folder / "metrics.jsonl"):
        raise RunError(f"{folder} is not a run: it has no metrics.jsonl, and no seed-*/metrics.jsonl or sweep.json")
    runs = [run.model_copy(update=numbers_in(run.folder)) for run in found]
    return group_of(name_of(folder), folder, runs or [RunResult(folder=".", setting=(), seed=0, fold=None, metrics={})],
                    trust)  # fmt: skip


def numbers_in(folder: str) -> dict[str, int | None]:
    """Returns the numbers in the name of a run's folder: {"seed": 1, "fold": 2} for `seed-1/fold-2`."""
    found = {kind: re.search(rf"\b{kind}-(\d{{1,9}})\b", folder) for kind in ("seed", "fold")}
    numbers = {kind: int(match[1]) if match else None for kind, match in found.items()}
    return {"seed": numbers["seed"] or 0, "fold": numbers["fold"]}


def group_of(name: str, folder: Path, runs: Sequence[RunResult], trust: Trust, best: str = "") -> Group:
    """Returns runs of one configuration as a group; for `best` see `groups_in`."""
    tree = dict(flat_settings(read_tree(folder / runs[0].folder)))
    curves = {
        "run" if len(runs) == 1 else run.folder: read_curves(folder / run.folder / "metrics.jsonl") for run in runs
    }
    seeds: dict[int, list[RunResult]] = {}
    for run in runs:
        seeds.setdefault(run.seed, []).append(run)
    members: dict[str, Member] = {}
    for seed, of_seed in seeds.items():
        folders = {str(run.folder): folder / run.folder for run in of_seed}
        if of_seed[0].fold is None:
            (members["run" if len(seeds) == 1 else f"seed-{seed}"],) = (
                run_member(each, trust) for each in folders.values()
            )
        elif (pooled := fold_member(tuple(folders.values()), trust)) is not None:
            members["run" if len(seeds) == 1 else f"seed-{seed}"] = pooled
        elif tree.get("data.split.inner"):
            members |= {name: inner_member(each) for name, each in folders.items()}
        else:
            why = "an older version has trained the folds, without sums of the samples"
            members |= {
                name: Member((each,), "val", figures_of(each), why=why, is_fold=True) for name, each in folders.items()
            }
    return Group(name, curves, members, str(tree.get("checkpoints.best", best) or ""), tree)


def run_member(folder: Path, trust: Trust) -> Member:
    """Returns a run as a seed of a group."""
    figures = figures_of(folder)
    sums = stored_sums(folder, "val", figures.step)
    if sums is None:
        return Member(
            (folder,), "val", figures, why="a run has no sums of the samples; `chopmix evaluate RUN` writes them"
        )
    tasks, why = tasks_of(folder, trust)
    if tasks is None:
        return Member((folder,), "val", figures, why=why)
    known = {name: part for name, part in sums.tasks.items() if name in tasks}
    return Member((folder,), "val", figures, RunSums(tasks, known), sums.keys, sums.units, sums.about)


def fold_member(folders: tuple[Path, ...], trust: Trust) -> Member | None:
    """Returns the folds of a cross-validation as a seed of a group: its metrics are those of all samples, computed from
    the added sums. None if a fold has no sums by sample."""
    split = "test" if dict(flat_settings(read_tree(folders[0]))).get("data.split.inner") else "val"
    parts = [stored_sums(folder, split, figures_of(folder).step) for folder in folders]
    if None in parts:
        return None
    found = [tasks_of(folder, trust) for folder in folders]
    if why := next((why for tasks, why in found if tasks is None), ""):
        return Member(folders, split, Figures(0, {}, {}), why=why)
    sums = pooled(parts, [tasks for tasks, _ in found])
    keys = [key for part in parts for key in part.keys]
    units = pooled_units(parts)
    figures = Figures(parts[0].about.step, on_split(split, sums), {})
    folds = {
        folder.name: Fold(on_split(split, RunSums(tasks, part.tasks)), samples_in(part.tasks))
        for folder, part, (tasks, _) in zip(folders, parts, found, strict=True)
    }
    return Member(folders, split, figures, sums, keys, units, parts[0].about, folds=folds)


def pooled_units(parts: Sequence[SplitSums]) -> list[Any] | None:
    """Returns the units of the samples of all folds (see `SplitSums.units`). The numbers of blocks begin at 0 in each
    fold."""
    if parts[0].units is None:
        return None
    are_blocks = parts[0].about.kind == "blocks"
    return [f"{fold} {unit}" if are_blocks else unit for fold, part in enumerate(parts) for unit in part.units]


def samples_in(sums: Mapping[str, TaskSums]) -> dict[str, int]:
    """Returns the number of samples with a target, by task."""
    return {name: len(part.numbers) for name, part in sums.items()}


def pooled(parts: Sequence[SplitSums], tasks: Sequence[Mapping[str, Task]]) -> RunSums:
    """Returns the sums of all folds. Sums with a number per class are left out if the classes of the folds differ."""
    firsts = np.cumsum([0, *(len(part.keys) for part in parts)]).tolist()
    joined = {}
    for name in tasks[0]:
        own = [(first, part.tasks[name]) for first, part in zip(firsts, parts) if name in part.tasks]
        own = [(first, sums) for first, sums in own if len(sums.numbers)]
        if not own:
            continue
        is_same = len({getattr(by_name[name], "classes", None) for by_name in tasks}) == 1
        names = [key for key in own[0][1].sums if all(key in sums.sums for _, sums in own)]
        names = [key for key in names if is_same or own[0][1].sums[key].ndim == 1]
        shapes = {key: {sums.sums[key].shape[1:] for _, sums in own} for key in names}
        joined[name] = TaskSums(
            np.concatenate([sums.numbers + first for first, sums in own]),
            {key: stacked([sums.sums[key] for _, sums in own]) for key in names if len(shapes[key]) == 1},
            [(number + first, *texts) for first, sums in own for number, *texts in sums.texts],
        )
    return RunSums(tasks[0], joined, is_pooled=True)


def tasks_of(folder: Path, trust: Trust) -> tuple[Mapping[str, Task] | None, str]:
    """Returns (tasks of a run, ""), or (None, the reason why they cannot be opened)."""
    try:
        config = read_config(folder, trust)
        return choppers_and_tasks(config, folder / "assets", partial(open_part, trust=config.nested))[1], ""
    except (ConfigError, DataError, RunError, OSError) as error:
        return None, f"the tasks of a run cannot be opened ({error})"


def short_names(names: Sequence[str]) -> list[str]:
    """Returns names without the folders that all of them begin with: `runs/a/x` and `runs/b` become `a/x` and `b`."""
    parts = [name.split("/") for name in names]
    common = 0
    while len(parts) > 1 and all(len(each) > common + 1 and each[common] == parts[0][common] for each in parts):
        common += 1
    return ["/".join(each[common:]) for each in parts]


def read_tree(run: Path) -> Any:
    """Returns the content of a run's `config.yaml`; empty if the file is missing or damaged."""
    try:
        return Document.read(run / "config.yaml").tree
    except ConfigError:
        return {}


def flat_settings(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (key, value) for the values of a configuration: `("model.block.norm.use", "rms_norm")`."""
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def read_curves(file: Path) -> dict[str, Curve]:
    """Returns the curve of every metric in a `metrics.jsonl`, by metric. Raises DataError for a damaged line."""
    curves: dict[str, Curve] = {}
    for record in read_metrics(file):
        for name, value in record.items():
            if name not in ("step", "seconds"):
                curves.setdefault(name, []).append((record["step"], value))
    return curves
