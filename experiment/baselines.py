"""A run or a cross-validation compared with simple models (`chopmix baselines`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.errors import RunError
from ..inference.baseline_table import Comparison, compared_tasks, comparison
from ..inference.baselines import LIMIT, Fitted, TaskBaselines, fit_baselines
from ..inference.evaluation import measured
from ..inference.evaluator import Say
from ..inference.intervals import RunSums, Units
from ..inference.sample_sums import SplitSums, TaskSums
from .folds import held_out
from .groups import pooled, pooled_units, several_in
from .run import Run
from .run_sums import sums_of


def folds_in(folder: Path) -> list[Path]:
    """Returns the folders of the folds of a cross-validation; none for a run. Raises RunError for a folder with several
    runs that are not the folds of one cross-validation."""
    folds = sorted(folder.glob("fold-*/config.yaml"), key=lambda file: int(file.parent.name.rpartition("-")[2]))
    if not folds and several_in(folder):
        runs = sorted(file.parent.relative_to(folder).as_posix() for file in folder.glob("*/config.yaml"))
        example = f", such as {folder / runs[0]}" if runs else ""
        raise RunError(f"{folder} has several runs; name one run, or the folder of one cross-validation{example}")
    return [file.parent for file in folds]


def compare_folds(
    runs: Sequence[Run], *, names: Sequence[str] | None = None, metric: str | None = None, limit: float = LIMIT,
    say: Say = lambda text: None,
) -> list[Comparison]:  # fmt: skip
    """Compares the runs of all folds of a cross-validation with simple models, which are fitted on the training samples
    of each fold. The figures are those of all samples. Raises DataError like `compared`."""
    split = held_out(runs[0].config)
    comparisons = []
    for name in compared_tasks(runs[0], names, metric):
        parts = [OneFold.of(run, name, split, limit, say) for run in runs]
        seconds = [run.training_seconds for run in runs]
        total = None if None in seconds else sum(seconds)
        result = comparison(split, *joined(parts, name, split), metric)
        comparisons.append(result.model_copy(update={"seconds": total}))
    return comparisons


@dataclass(frozen=True)
class OneFold:
    """The sums of a fold and of its simple models."""

    run: Run
    sums: SplitSums
    fitted: TaskBaselines

    @classmethod
    def of(cls, run: Run, name: str, split: str, limit: float, say: Say) -> OneFold:
        """Evaluates a fold and fits its simple models."""
        say(f"{run.folder.name}")
        data = run.open(split, say=lambda text: None)
        with run.arithmetic():
            result = measured(run, data, names=[name], generated=0, detail="samples")
        fitted = fit_baselines(run, name, [split], limit, say)
        return cls(run, sums_of(run, data, result), fitted)

    def with_sums(self, name: str, sums: TaskSums) -> SplitSums:
        """Returns other sums of the same samples."""
        return replace(self.sums, tasks={name: sums})


def joined(parts: Sequence[OneFold], name: str, split: str) -> tuple[RunSums, TaskBaselines, Units]:
    """Returns the sums of all folds, those of the simple models that were fitted in all of them, and the units of the
    samples."""
    tasks = [{name: part.run.tasks[name]} for part in parts]
    own = pooled([part.with_sums(name, part.sums.tasks[name]) for part in parts], tasks)
    fitted = []
    by_title = [{each.title: each for each in part.fitted.fitted} for part in parts]
    for title in (title for title in by_title[0] if all(title in of_fold for of_fold in by_title)):
        each = [of_fold[title] for of_fold in by_title]
        seconds, problem = sum(of_fold.seconds for of_fold in each), next((f.problem for f in each if f.problem), "")
        sums = {}
        if not problem:
            folds = [part.with_sums(name, of_fold.sums[split]) for part, of_fold in zip(parts, each, strict=True)]
            sums = {split: pooled(folds, tasks).sums[name]}
        fitted.append(Fitted(title, seconds, sums, problem))
    labels = pooled_units([part.sums for part in parts])
    samples = sum(len(part.sums.keys) for part in parts)
    remarks = dict.fromkeys(line for part in parts for line in part.fitted.remarks)
    return own, TaskBaselines(fitted, [*remarks]), Units(labels, samples, parts[0].sums.about)
