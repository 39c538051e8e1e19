"""Compares an agent that is conditioned on returns with imitation of all or of the best episodes, and with the data.

    python benchmarks/decision.py configs/decision/cartpole.yaml --targets 25,50,100,200,350,500 --seeds 0,1,2

trains the missing runs in runs/decision/NAME/AGENT/seed-N (the agents of `KINDS`), lets each of
them play `--episodes` episodes from the same start seeds, and adds a row for each agent and target return to
`benchmarks/results/`. `--set KEY=VALUE` overrides the configuration of all agents.
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

CONDITIONED = "conditioned"
"""The name of the agent that is conditioned on returns, in the folders of runs and in the results (older rows have
another name)."""
KINDS = {
    CONDITIONED: (),
    "clone": ("inputs.return=null", "data.dataset.balance=0"),
    "best": ("inputs.return=null", "data.dataset.balance=0", "data.dataset.best={best}"),
}
"""The overrides of the configuration for each kind of agent."""


def changes_of(config: str, kind: str, options: argparse.Namespace) -> list[str]:
    """Returns the overrides for an agent. If it is not conditioned on returns, its evaluations ask for no return, and
    its best checkpoint is chosen by `val/return` if the configuration chooses it by the return at a target."""
    changes = [override.format(best=options.best) for override in KINDS[kind]]
    settings = load_config(config, list(options.set))
    if kind != CONDITIONED and "play" in settings.evaluation.also:
        changes.append("evaluation.play.targets=[]")
    if kind != CONDITIONED and settings.checkpoints.best.startswith("val/return_at_"):
        changes.append("checkpoints.best=val/return")
    return changes


def agent(config: str, kind: str, seed: int, options: argparse.Namespace) -> Run:
    """Returns the run of one agent and seed, which is trained first if it does not exist. Its checkpoint is the one
    that `chopmix play` uses."""
    folder = Path("runs/decision") / Path(config).stem / kind / f"seed-{seed}"
    changes = [*changes_of(config, kind, options), *options.set, f"training.seed={seed}"]
    return load_run(trained(config, folder, changes))


def rows_of(config: str, kind: str, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Returns a row for each target return, or a single row for an agent that is not conditioned on returns."""
    playing = configured(load_config(config, []))
    run, rows = agent(config, kind, seed, options), []
    for target in map(float, options.targets.split(",")) if kind == CONDITIONED else [None]:
        for temperature in (
            map(float, options.temperatures.split(",")) if options.temperatures else [playing.temperature]
        ):
            how = Playing(environment=playing.environment, temperature=temperature, episodes=options.episodes)
            figures = figures_of(list(episodes_of(run, how, target, range(options.episodes))))
            row = {"agent": kind, "seed": seed, "target": target, "temperature": temperature}
            rows.append(row | {"episodes": options.episodes, **figures, **(data_figures(run) or {})})
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("--targets", required=True)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--agents", default=",".join(KINDS))
    options.add_argument("--episodes", type=int, default=100)
    options.add_argument("--best", type=float, default=0.1, help="the share of the best episodes that is imitated")
    options.add_argument("--temperatures", default="", help="default: that of the configuration's evaluation.play")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = options.parse_args()
    rows = [
        row
        for kind in arguments.agents.split(",")
        for seed in map(int, arguments.seeds.split(","))
        for row in rows_of(arguments.config, kind, seed, arguments)
    ]
    write_results(f"decision_{Path(arguments.config).stem}", rows)


if __name__ == "__main__":
    main()
