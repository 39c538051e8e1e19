"""Compares one model for several tasks (the generalist) with a separate model for each task (a specialist).

`config` prints configs/generalist/four.yaml (or `--config`) for one source only. With `--like`, the specialist trains
on as many samples of its source, in as many steps, as a run of the generalist; with `--minutes`, for that time (here a
quarter, so that the four specialists together take as long as the generalist):

    python train.py configs/generalist/four.yaml --seeds 0,1,2
    for name in mnist fsdd python captions; do
        python benchmarks/specialists.py config $name --like runs/generalist/four/seed-0 > runs/alone_$name.yaml
        python train.py runs/alone_$name.yaml --seeds 0,1,2 out=runs/alone/$name
        python benchmarks/specialists.py config $name --minutes 3.75 > runs/timed_$name.yaml
        python train.py runs/timed_$name.yaml --seeds 0,1,2 out=runs/timed/$name
    done
    python benchmarks/specialists.py measure runs/generalist/four runs/alone runs/timed

configs/generalist/five.yaml has the additional source cartpole. `measure` evaluates all runs on val and test and writes
the mean and standard deviation over seeds of each source's metric, for the generalist and both kinds of specialists.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from chopmix.experiment.run import load_run
from chopmix.projects.decision.agent import configured, play_metrics
from chopmix.training.checkpoints import read_step
from measure import runs_in
from results import write_results

CONFIG = Path(__file__).parents[1] / "configs" / "generalist" / "four.yaml"
KEPT = {
    "mnist": (("image",), "digit", "digit/accuracy"),
    "fsdd": (("sound",), "spoken", "spoken/accuracy"),
    "python": (("text",), "python", "python/loss"),
    "captions": (("english", "german"), "german", "german/loss"),
    "cartpole": (("return", "observation", "action"), "act", "return_at_500"),
}
"""The inputs, the task and the compared metric of each source."""


def config_of(config: Path, name: str, steps: int | None, minutes: float | None) -> dict[str, Any]:
    """Returns the configuration of a specialist for a number of steps or minutes. A step has as many samples as its
    source has in a step of the generalist."""
    tree, (inputs, task, _) = yaml.safe_load(config.read_text()), KEPT[name]
    dataset, share = tree["data"]["dataset"], tree["data"]["dataset"]["share"]
    tree["inputs"] = {key: tree["inputs"][key] for key in inputs}
    tree["tasks"] = {task: tree["tasks"][task]}
    tree["model"]["block"].pop("own_layers", None)  # all layers belong to the one task
    prefix = [key for key in ("image", "sound", "english") if key in inputs]
    tree["model"]["attention"] = (
        f"same_sample & (causal | from({', '.join(prefix)}))" if prefix else "same_sample & causal"
    )
    dataset["of"], dataset["columns"] = (
        {key: value for key, value in dataset[part].items() if key == name} for part in ("of", "columns")
    )
    if name != "cartpole":
        tree["evaluation"].pop("play", None)
        tree["data"].pop("order", None)  # only inputs of cartpole have times
    samples, total = tree["training"]["samples_per_step"] * share[name], sum(share.values())
    if samples % total:
        raise SystemExit(f"the number of samples of {name} in a step is not an integer: {samples} / {total}")
    dataset["share"] = {name: 1}
    tree["training"] |= {"samples_per_step": samples // total, "minutes": minutes, "steps": steps}
    return tree


def figures(folder: Path) -> list[dict[str, float]]:
    """Returns all metrics on val and test of the runs in a folder, one mapping per seed."""
    metrics = []
    for run in map(load_run, runs_in(folder)):
        metrics.append(run.evaluate("val") | run.evaluate("test" if "test" in run.dataset().splits else "val"))
        if "play" in run.config.evaluation.also:
            returns = play_metrics(run, replace(configured(run.config), episodes=100))
            metrics[-1] |= {f"val/{key}": value for key, value in returns.items()}
    return metrics


def row(who: str, name: str, seeds: list[dict[str, float]]) -> dict[str, Any]:
    """Returns one row: mean and standard deviation of a source's metric over the seeds of one kind of model."""
    columns: dict[str, Any] = {"who": who, "source": name, "seeds": len(seeds)}
    for split in ("val", "test"):
        if name == "cartpole" and split == "test":
            continue  # agents play the same episodes for every split
        metric = KEPT[name][2]
        key = f"{split}/{metric}" if name == "cartpole" else f"{split}/{name}/{metric}"
        values = [metrics[key] for metrics in seeds]
        columns |= {f"{split}/metric": metric, f"{split}/mean": statistics.mean(values)}
        columns[f"{split}/std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return columns


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    config = commands.add_parser("config", help="print the YAML of a specialist")
    config.add_argument("name", choices=KEPT)
    config.add_argument("--config", type=Path, default=CONFIG)
    length = config.add_mutually_exclusive_group(required=True)
    length.add_argument("--like", type=Path, metavar="RUN", help="as many steps as this run of the generalist")
    length.add_argument("--minutes", type=float, help="training time in minutes")
    measure = commands.add_parser("measure", help="compare trained runs")
    for name in ("generalist", "alone", "timed"):
        measure.add_argument(name, type=Path, help="a folder of seeds (generalist) or of sources with their seeds")
    chosen = options.parse_args()
    if chosen.command == "config":
        tree = config_of(chosen.config, chosen.name, chosen.like and read_step(chosen.like, "last"), chosen.minutes)
        print(yaml.safe_dump(tree, sort_keys=False, width=1000), end="")
        return
    generalist = figures(chosen.generalist)
    names = [name for name in KEPT if f"val/{name}/{KEPT[name][1]}/loss" in generalist[0]]
    rows = [row("generalist", name, generalist) for name in names]
    for who in ("alone", "timed"):
        folders = {name: getattr(chosen, who) / name for name in names}
        rows += [row(who, name, figures(folder)) for name, folder in folders.items() if folder.exists()]
    write_results("specialists", rows)


if __name__ == "__main__":
    main()
