"""The sums by sample of a run: which samples are drawn together for intervals, and the file in the run's folder."""

from __future__ import annotations

from pathlib import Path

from ..data.split import Split
from ..files.printing import say_aside
from ..inference.evaluation import Measured, measured
from ..inference.intervals import Intervals, RunSums, Units, split_intervals, units_of
from ..inference.sample_sums import FORMAT, About, SplitSums, read_sums
from ..training import checkpoints as checkpoint
from .run import Run
from .run_names import is_contained


def sums_of(run: Run, data: Split, result: Measured) -> SplitSums:
    """Returns the sums by sample of an evaluation with `by_sample`."""
    kind, of, labels = units_of(data, run.group)
    tasks = {name: result.by_sample[name] for name in run.tasks if name in result.by_sample}
    weights = checkpoint.identity(run.folder, run.step)
    about = About(
        format=FORMAT, split=result.split, step=run.step, weights=weights, tasks=tuple(tasks), kind=kind, of=of
    )
    if data.answerable:
        return SplitSums(about=about, keys=list(data.samples.keys), units=labels, tasks=tasks)
    starts = [index.number for index in data.all()]  # of a corpus
    places = {start: number for number, start in enumerate(starts)}
    tasks = {name: sums.select(places) for name, sums in tasks.items()}
    return SplitSums(about=about, keys=[str(start) for start in starts], units=None, tasks=tasks)


def intervals_of(run: Run, result: Measured, sums: SplitSums) -> Intervals:
    """Returns the intervals of the metrics of an evaluation."""
    units = Units(sums.units, len(sums.keys), sums.about)
    return split_intervals(result.split, [RunSums(run.tasks, sums.tasks)], result.metrics, units, result.outputs)


def stored_sums(folder: Path, split: str, step: int) -> SplitSums | None:
    """Returns the stored sums of a run for the checkpoint of a step; None if there are none, or if they belong to other
    weights. Raises DataError if the file is damaged."""
    sums = read_sums(folder / "report", split)
    return sums if sums and sums.about.weights == checkpoint.identity(folder, step) else None


def keep_sums(run: Run, sums: SplitSums, folder: Path | None) -> None:
    """Writes sums by sample into the folder of a report; None: `report` in the folder of the run, if it can be written
    and if it is not a link, since the run may come from elsewhere. Nothing is written for a run that chopmix
    contains."""
    if folder is not None:
        sums.write(folder)
    elif not is_contained(run.folder) and not (run.folder / "report").is_symlink():
        try:
            sums.write(run.folder / "report", within=run.folder)
        except OSError as error:
            say_aside(f"{error}; --report DIR writes to another folder")


def store_sums(run: Run, data: Split, generated: int | None = None) -> None:
    """Evaluates a run on a split and writes the sums by sample into `report` in the folder of the run. `generated`: see
    `evaluation.generated`."""
    with run.arithmetic():
        result = measured(run, data, generated=generated, detail="samples")
    sums_of(run, data, result).write(run.folder / "report", within=run.folder)
