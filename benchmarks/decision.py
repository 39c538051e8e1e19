"""An agent that is told what return to reach, compared with two that are told nothing: cloning of all episodes, and of
the best (a tenth, or `--best`); and with the data.

    python benchmarks/decision.py configs/decision/cartpole.yaml --targets 25,50,100,200,350,500 --seeds 0,1,2

trains what is not trained yet, in runs/decision/NAME/{told,clone,best}/seed-N, lets each play (`--episodes` of them,
from the same start seeds), and adds a row for each of them, and of each target, to `benchmarks/results/`. `--set
KEY=VALUE` changes the configuration of all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from chopmix.experiment.run import Run, load_run
from chopmix.experiment.settings.config import load_config
from chopmix.projects.decision.agent import Playing, configured, data_figures, episodes_of, figures_of
from results import write_results
from trained import trained

KINDS = {
    "told": (),
    "clone": ("inputs.return=null", "data.dataset.balance=0"),
    "best": ("inputs.return=null", "data.dataset.balance=0", "data.dataset.best={best}"),
}
"""What each agent changes in the configuration."""


def changes_of(config: str, kind: str, options: argparse.Namespace) -> list[str]:
    """What an agent changes in the configuration. One that is told no return is asked for none while it trains either,
    and its best checkpoint is chosen by the return that it reaches if the configuration chooses by returns."""
    known, changes = load_config(config, list(options.set)), [each.format(best=options.best) for each in KINDS[kind]]
    if kind != "told" and "play" in known.evaluation.also:
        changes.append("evaluation.play.targets=[]")
    if kind != "told" and known.checkpoints.best.startswith("val/return_at_"):
        changes.append("checkpoints.best=val/return")
    return changes


def agent(config: str, kind: str, seed: int, options: argparse.Namespace) -> Run:
    """The run of one agent and seed, trained first if it is not there; its checkpoint is the one that `chopmix play`
    opens."""
    folder = Path("runs/decision") / Path(config).stem / kind / f"seed-{seed}"
    changes = [*changes_of(config, kind, options), *options.set, f"training.seed={seed}"]
    return load_run(trained(config, folder, changes))


def rows_of(config: str, kind: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each return that is asked for; one alone of an agent that is told none."""
    known = configured(load_config(config, []))
    run, found = agent(config, kind, seed, options), []
    for target in map(float, options.targets.split(",")) if kind == "told" else [None]:
        for temperature in map(float, options.temperatures.split(",")) if options.temperatures else [known.temperature]:
            how = Playing(environment=known.environment, temperature=temperature, episodes=options.episodes)
            figures = figures_of(list(episodes_of(run, how, target, range(options.episodes))))
            row = {"agent": kind, "seed": seed, "target": target, "temperature": temperature}
            found.append(row | {"episodes": options.episodes, **figures, **(data_figures(run) or {})})
            print(found[-1], flush=True)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("--targets", required=True)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--agents", default="told,clone,best")
    options.add_argument("--episodes", type=int, default=100)
    options.add_argument("--best", type=float, default=0.1, help="the share of episodes that is cloned as the best")
    options.add_argument("--temperatures", default="", help="default: that of the configuration's evaluation.play")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = options.parse_args()
    rows = [
        row
        for kind in given.agents.split(",")
        for seed in map(int, given.seeds.split(","))
        for row in rows_of(given.config, kind, seed, given)
    ]
    write_results(f"decision_{Path(given.config).stem}", rows)


if __name__ == "__main__":
    main()
