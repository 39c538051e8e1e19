"""Compares chopmix with simple models and with the strongest rival of each kind of data:

    python benchmarks/baselines.py                       # all rows, seeds 0 to 4
    python benchmarks/baselines.py GunPoint --seeds 0,1

For each row a configuration is trained with every seed. The simple models of `chopmix baselines` are fitted to the same
training samples; the best one is chosen on val. All of them are scored on test once. A difference is that of the mean
over the seeds, positive if chopmix is better; its interval of 95 % is that of a bootstrap over the test samples. Runs
are kept in `runs/baselines`, and a finished run is not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from chopmix.experiment.groups import pooled, pooled_units
from chopmix.experiment.run import Run, load_run
from chopmix.experiment.run_sums import sums_of
from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train
from chopmix.inference.baselines import fit_baselines, read_samples
from chopmix.inference.baselines import sums_of as sums_of_predictions
from chopmix.inference.evaluation import measured
from chopmix.inference.intervals import RunSums, Units, difference_intervals, on_all
from chopmix.inference.sample_sums import SplitSums, TaskSums
from results import write_results

ROOT = Path(__file__).parents[1]
Rival = Callable[[Run, str, int], Sequence[Any]]
"""Maps a run, the name of its task and a seed to predictions for the samples of test, in the order of
`read_samples`."""


def mini_rocket(run: Run, name: str, seed: int) -> np.ndarray:
    """Returns the scores of MiniRocket (Dempster et al. 2021, arXiv:2012.08791) for series; shorter series are padded
    with zeros. It is fitted to the same training samples as the run, which are fewer than those of the archive."""
    from aeon.classification.convolution_based import MiniRocketClassifier

    task, series = run.tasks[name], {}
    for split in ("train", "test"):
        rows = [row["series"].T for row in run.samples(split)]
        series[split] = rows
    longest = max(each.shape[1] for rows in series.values() for each in rows)
    padded = {
        split: np.stack([np.pad(each, ((0, 0), (0, longest - each.shape[1]))) for each in rows])
        for split, rows in series.items()
    }
    labels = [task.class_of(row["label"]) for row in run.samples("train")]
    model = MiniRocketClassifier(random_state=seed, n_jobs=1).fit(np.nan_to_num(padded["train"]), np.array(labels))
    predicted = model.predict(np.nan_to_num(padded["test"]))
    return np.array([[float(task.class_of(label) == name) for name in task.classes] for label in predicted])


@dataclass(frozen=True)
class Row:
    """One data set of the benchmark."""

    config: str
    """A configuration, relative to the folder of the repository."""
    overrides: Sequence[str] = ()
    parts: Sequence[Sequence[str]] = ((),)
    """The overrides of several runs whose test samples are measured together, such as one for each speaker."""
    rival: Rival | None = None
    rival_name: str = ""


def series(name: str, channels: int, window: int) -> Row:
    """Returns the row of a data set of the archive."""
    overrides = [f"data.dataset.name={name}", f"inputs.series.channels={channels}", f"inputs.series.window={window}"]
    return Row("configs/sensor/series.yaml", overrides, rival=mini_rocket, rival_name="MiniRocket")


ROWS = {
    "GunPoint": series("GunPoint", 1, 5),
    "ItalyPowerDemand": series("ItalyPowerDemand", 1, 1),
    "JapaneseVowels": series("JapaneseVowels", 12, 1),
    "BasicMotions": series("BasicMotions", 6, 4),
    "PickupGestureWiimoteZ": series("PickupGestureWiimoteZ", 1, 8),
    "temperatures_seattle": Row("configs/sensor/temperatures.yaml"),
    "temperatures_sf": Row("configs/sensor/temperatures.yaml", ["data.dataset.city=sf"]),
}
"""The rows by name."""


def trained(name: str, row: Row, part: int, seed: int) -> Run:
    """Trains a run, or loads it if it is finished."""
    out = Path("runs/baselines") / name / f"seed-{seed}" / (f"part-{part}" if len(row.parts) > 1 else "run")
    quiet = ["evaluation.report=false", "evaluation.baselines=false", "logging.tensorboard=false"]
    overrides = [*row.overrides, *row.parts[part], *quiet, f"training.seed={seed}", f"out={out}"]
    config = load_config(ROOT / row.config, overrides)
    if not (out / "summary.json").exists():
        _, status = train(config, progress=False)
        if status:
            raise SystemExit(status)
    return load_run(out)


def of_run(run: Run, name: str) -> SplitSums:
    """Returns the sums by sample of a run on test."""
    data = run.open("test", say=lambda text: None)
    with run.arithmetic():
        return sums_of(run, data, measured(run, data, names=[name], generated=0, detail="samples"))


def of_rival(row: Row, run: Run, name: str, seed: int) -> TaskSums:
    """Returns the sums by sample of the rival on test."""
    data = run.open("test", say=lambda text: None)
    samples = [*read_samples(run, name, data, data.all())]
    return sums_of_predictions(run.tasks[name], samples, row.rival(run, name, seed))


def compared(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Trains and measures one row of the benchmark. Returns its result."""
    row = ROWS[name]
    runs = {seed: [trained(name, row, part, seed) for part in range(len(row.parts))] for seed in seeds}
    first = runs[seeds[0]]
    ((task_name, task),) = first[0].tasks.items()
    tasks = [{task_name: run.tasks[task_name]} for run in first]
    parts = [of_run(run, task_name) for run in first]

    def together(sums: Sequence[TaskSums]) -> RunSums:
        return pooled([replace(part, tasks={task_name: each}) for part, each in zip(parts, sums, strict=True)], tasks)

    own = [together([of_run(run, task_name).tasks[task_name] for run in of_seed]) for of_seed in runs.values()]
    units = Units(pooled_units(parts), sum(len(part.keys) for part in parts), parts[0].about)
    key = task.headline
    sign = 1.0 if task.metrics[key].larger_is_better else -1.0
    value = float(np.mean([on_all(task.metrics, run.sums[task_name])[key] for run in own]))
    samples = len(own[0].sums[task_name].numbers)
    result = {
        "name": name, "seeds": len(seeds), "metric": key, "samples": samples, "value": value,
        "seconds": float(np.mean([sum(run.training_seconds or 0 for run in of_seed) for of_seed in runs.values()])),
    }  # fmt: skip

    def difference(other: Sequence[RunSums]) -> dict[str, float]:
        mean = float(np.mean([on_all(task.metrics, run.sums[task_name])[key] for run in other]))
        interval = difference_intervals("test", other, own, units).get(f"test/{key}")
        ends = sorted(sign * end for end in interval) if interval else [float("nan")] * 2
        return {"value": mean, "better": sign * (value - mean), "low": ends[0], "high": ends[1]}

    fitted = [fit_baselines(run, task_name, ["val", "test"]).fitted for run in first]
    by_title = {each[0].title: each for each in zip(*fitted, strict=True) if all(one.sums for one in each)}
    on_val = {
        title: np.mean([on_all(task.metrics, one.sums["val"])[key] for one in each]) for title, each in by_title.items()
    }
    best = max(on_val, key=lambda title: sign * on_val[title])
    of_best = difference([together([one.sums["test"] for one in by_title[best]])])
    result |= {"baseline": best} | {f"baseline_{key}": figure for key, figure in of_best.items()}
    if row.rival:
        others = [together([of_rival(row, run, task_name, seed) for run in first]) for seed in seeds]
        result |= {"rival": row.rival_name} | {f"rival_{key}": figure for key, figure in difference(others).items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="separated by commas")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; possible: {', '.join(ROWS)}")
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in options.names or ROWS:
        write_results("baselines", [compared(name, seeds)])


if __name__ == "__main__":
    main()
