"""The samples of a run in Python: `run.samples("val")`, and those of the folds of a cross-validation."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..data.base import Dataset
from ..data.fingerprint import Fingerprint
from ..data.samples import Changed, Columns, Samples
from ..files.errors import RunError
from ..files.trust import NOTHING, Trust
from ..tasks.base import target_columns
from .build import check_columns
from .run_folder import read_config
from .settings.config import Config


@dataclass(frozen=True)
class RunSamples(Changed):
    """The samples of a data set by the inputs of a run, with the true values of its tasks: `sources` maps each input,
    and each data column of a task, to the data column with its value. A value that a sample lacks is None."""

    sources: Mapping[str, str]

    @property
    def column_names(self) -> list[str]:
        """The names of the columns that can occur."""
        return list(self.sources)

    def row(self, number: int, names: Collection[str] | None = None) -> Columns:
        sources = {name: column for name, column in self.sources.items() if names is None or name in names}
        row = self.samples.row(number, {*sources.values()})
        return {name: row.get(column) for name, column in sources.items()}

    def fingerprint(self, labels: Collection[str] = ()) -> str:
        columns = {self.sources[label] for label in labels if label in self.sources}
        return Fingerprint("RunSamples", self.samples.fingerprint(columns), [dict(self.sources)]).hex


def samples_of_split(config: Config, dataset: Dataset, split: str) -> RunSamples:
    """Returns the samples of a split of a run. Raises RunError for a text corpus, and if an input has the name of a
    data column that a task reads, but reads another column; DataError if the split does not exist or cannot be
    read."""
    if not dataset.holds_samples:
        raise RunError(f"{config.out} reads a text corpus, which has no samples; run.open({split!r}) has its windows")
    wiring = config.wiring
    sources = {name: column for name, column in wiring.columns.items() if name not in wiring.made}
    for column in target_columns(wiring.tasks):
        if sources.setdefault(column, column) != column:
            raise RunError(
                f"{config.out}: the input {column!r} reads the column {sources[column]!r}, but a task reads a column "
                f"{column!r}; rename the input"
            )
    check_columns(config, dataset)
    return RunSamples(dataset.opened(split), sources)


@dataclass(frozen=True)
class RefusedOpen:
    """Replaces `open` of the data set of a run whose data are divided by `data.split`. Raises RunError when called."""

    folder: Path

    def __call__(self, split: str) -> NoReturn:
        raise RunError(
            f"the data set of {self.folder} is divided by data.split, so its own split {split!r} is not that of the "
            f"run; use run.samples({split!r})"
        )


def view_of(dataset: Dataset, folder: Path) -> Dataset:
    """Returns a data set, or, if it is divided by a rule, a copy whose `open` is refused: it would return other splits
    than those of the run."""
    if getattr(dataset, "division", None) is None:
        return dataset
    view = copy(dataset)
    view.open = RefusedOpen(folder)  # type: ignore[attr-defined]
    return view


FOLD = re.compile(r"fold-(\d{1,4})")


class CrossValidation:
    """The folder of a cross-validation (`--folds`), which has only the method `samples`. Each fold is a run of its own:
    `chopmix.load("runs/folds/fold-0")`."""

    def __init__(self, folder: Path, trust: Trust = NOTHING):
        self.folder, self._trust = folder, trust

    def samples(self, split: str, *, fold: int) -> Samples:
        """Returns the samples of the split `train`, `val` or `test` in a fold, from 0. Raises RunError if there is no
        such fold, DataError if the data cannot be read."""
        folds = folds_of(self.folder)
        if fold not in folds:
            raise RunError(f"{self.folder} has no fold {fold}; possible: {', '.join(map(str, folds))}")
        config = read_config(folds[fold], self._trust)
        return samples_of_split(config, config.dataset(), split)

    def __getattr__(self, name: str) -> NoReturn:
        run = next(iter(folds_of(self.folder).values()), self.folder)
        raise AttributeError(
            f"{self.folder} is a cross-validation, which has no {name!r}, only samples(split, fold=0); load the run of "
            f"a fold: chopmix.load({str(run)!r})"
        )

    def __repr__(self) -> str:
        return f"CrossValidation({str(self.folder)!r}, folds {', '.join(map(str, folds_of(self.folder)))})"


def folds_of(folder: Path) -> dict[int, Path]:
    """Returns the folder of a run for each fold, by the number of the fold: the first one, if there are several seeds
    or settings. Empty if the folder is not that of a cross-validation."""
    files: Sequence[Path] = sorted(
        file for pattern in ("", "*/", "*/*/") for file in folder.glob(f"{pattern}fold-*/config.yaml")
    )
    folds: dict[int, Path] = {}
    for file in files:
        if match := FOLD.fullmatch(file.parent.name):
            folds.setdefault(int(match[1]), file.parent)
    return dict(sorted(folds.items()))
