"""One set of weights for several tasks beside a specialist for each.

`config` writes configs/generalist/four.yaml (or that of `--config`) for one source alone: as many of its own samples in
as many steps as a run of the generalist took, or, with --minutes, for so long (a quarter of the time, so that the four
together take as much):

    python train.py configs/generalist/four.yaml --seeds 0,1,2
    for name in mnist fsdd python captions; do
        python benchmarks/specialists.py config $name --like runs/generalist/four/seed-0 > runs/alone_$name.yaml
        python train.py runs/alone_$name.yaml --seeds 0,1,2 out=runs/alone/$name
        python benchmarks/specialists.py config $name --minutes 3.75 > runs/timed_$name.yaml
        python train.py runs/timed_$name.yaml --seeds 0,1,2 out=runs/timed/$name
    done
    python benchmarks/specialists.py measure runs/generalist/four runs/alone runs/timed

For configs/generalist/five.yaml there is cartpole too. `measure` evaluates all of them on val and test, and gives the
metric of each source and split: the mean and the standard deviation over seeds of the generalist and of both kinds of
specialists.
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
"""Of each source its inputs, its task and the metric that is compared."""


def config_of(config: Path, name: str, steps: int | None, minutes: float | None) -> dict[str, Any]:
    """The configuration of a specialist, for so many steps, or minutes: its source's share of every step's samples."""
    tree, (inputs, task, _) = yaml.safe_load(config.read_text()), KEPT[name]
    dataset, share = tree["data"]["dataset"], tree["data"]["dataset"]["share"]
    tree["inputs"] = {key: tree["inputs"][key] for key in inputs}
    tree["tasks"] = {task: tree["tasks"][task]}
    tree["model"]["block"].pop("own_layers", None)  # all of it for one task
    read = [key for key in ("image", "sound", "english") if key in inputs]
    tree["model"]["attention"] = f"same_sample & (causal | from({', '.join(read)}))" if read else "same_sample & causal"
    dataset["of"], dataset["columns"] = (
        {key: value for key, value in dataset[part].items() if key == name} for part in ("of", "columns")
    )
    if name != "cartpole":
        tree["evaluation"].pop("play", None)
        tree["data"].pop("order", None)  # no other input has a time
    own = tree["training"]["samples_per_step"] * share[name]
    if own % sum(share.values()):
        raise SystemExit(f"{name} has no whole number of samples in a step: {own} / {sum(share.values())}")
    dataset["share"] = {name: 1}
    tree["training"] |= {"samples_per_step": own // sum(share.values()), "minutes": minutes, "steps": steps}
    return tree


def figures(folder: Path) -> list[dict[str, float]]:
    """All metrics of val and test of the runs in a folder, by seed."""
    found = []
    for run in map(load_run, runs_in(folder)):
        found.append(run.evaluate("val") | run.evaluate("test" if "test" in run.dataset().splits else "val"))
        if "play" in run.config.evaluation.also:
            how = configured(run.config)
            played = play_metrics(run, replace(how, episodes=100))
            found[-1] |= {f"val/{key}": value for key, value in played.items()}
    return found


def row(who: str, name: str, found: list[dict[str, float]]) -> dict[str, Any]:
    """One row: a source's metric over the seeds of one kind of model."""
    made: dict[str, Any] = {"who": who, "source": name, "seeds": len(found)}
    for split in ("val", "test"):
        if name == "cartpole" and split == "test":
            continue  # it plays whatever the split
        metric = KEPT[name][2]
        values = [each[f"{split}/{metric}" if name == "cartpole" else f"{split}/{name}/{metric}"] for each in found]
        made |= {f"{split}/metric": KEPT[name][2], f"{split}/mean": statistics.mean(values)}
        made[f"{split}/std"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return made


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = options.add_subparsers(dest="command", required=True)
    written = commands.add_parser("config", help="print the YAML of a specialist")
    written.add_argument("name", choices=KEPT)
    written.add_argument("--config", type=Path, default=CONFIG)
    how = written.add_mutually_exclusive_group(required=True)
    how.add_argument("--like", type=Path, metavar="RUN", help="for as many steps as this run of the generalist")
    how.add_argument("--minutes", type=float, help="for so many minutes")
    measured = commands.add_parser("measure", help="compare trained runs")
    for name in ("generalist", "alone", "timed"):
        measured.add_argument(name, type=Path, help="a folder of seeds, or of sources with their seeds")
    chosen = options.parse_args()
    if chosen.command == "config":
        tree = config_of(chosen.config, chosen.name, chosen.like and read_step(chosen.like, "last"), chosen.minutes)
        print(yaml.safe_dump(tree, sort_keys=False, width=1000), end="")
        return
    together = figures(chosen.generalist)
    names = [name for name in KEPT if f"val/{name}/{KEPT[name][1]}/loss" in together[0]]
    rows = [row("generalist", name, together) for name in names]
    for who in ("alone", "timed"):
        there = [name for name in names if (getattr(chosen, who) / name).exists()]
        rows += [row(who, name, figures(getattr(chosen, who) / name)) for name in there]
    write_results("specialists", rows)


if __name__ == "__main__":
    main()
