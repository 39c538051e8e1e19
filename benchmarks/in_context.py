"""Measures in-context learning, compared with regression and other methods ("rivals"), over several seeds.

    python benchmarks/in_context.py configs/in_context/linear.yaml --seeds 0,1,2 --functions 4000

trains the missing runs in runs/in_context/NAME/seed-N and adds a row for each seed, kind of data and number of
examples to `benchmarks/results/`: mean squared errors on `--functions` functions, and the paired differences between
the model and each rival; for rules, the share of correct answers. Half of the functions are used to choose the
settings of the rivals. Each metric has a standard error (`se`), and each seed has different functions. Finally it
prints, for `--at` examples, the mean over the seeds, the standard deviation between them and the mean standard error
of one seed. `--set KEY=VALUE` overrides the configuration of all runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chopmix.experiment.run import load_run
from chopmix.projects.in_context.curves import followed, learned
from chopmix.projects.in_context.datasets.rules import Rules
from chopmix.projects.in_context.scoring import ERROR, error_rows
from results import write_results
from trained import trained


def measured(config: str, seed: int, functions: int, changes: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the rows of one seed, which is trained first if its run does not exist."""
    folder = Path("runs/in_context") / Path(config).stem / f"seed-{seed}"
    run = load_run(trained(config, folder, [*changes, f"training.seed={seed}"]))

    def log(text: str) -> None:
        print(f"{folder}: {text}", file=sys.stderr)

    if isinstance(run.dataset(), Rules):
        return [{"seed": seed} | row for row in followed(run, functions, log)]
    return [{"seed": seed} | row for row in error_rows(learned(run, functions, log)[0])]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--functions", type=int, default=1000)
    options.add_argument("--at", type=int, default=8)
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    arguments = options.parse_args()
    seeds = map(int, arguments.seeds.split(","))
    rows = [row for seed in seeds for row in measured(arguments.config, seed, arguments.functions, arguments.set)]
    write_results(f"in_context_{Path(arguments.config).stem}", rows)
    for line in summary(rows, arguments.at):
        print(line)


def summary(rows: Sequence[Mapping[str, Any]], at: int) -> list[str]:
    """Formats every metric after `at` examples over all seeds, one line each."""
    figures_by_name = defaultdict(list)
    for row in rows:
        for name in row:
            if name + ERROR in row and row["examples"] == at:
                figures_by_name[row.get("where", row.get("rules")), name].append((row[name], row[name + ERROR]))
    lines = []
    for (kind, name), figures in figures_by_name.items():
        values, errors = zip(*figures)
        between = f", {statistics.stdev(values):.2g} between seeds" if len(values) > 1 else ""
        mean = f"{statistics.mean(values):.4g}{between}, standard error of one seed {statistics.mean(errors):.2g}"
        lines.append(f"{kind}, after {at} examples, {name}: {mean}")
    return lines


if __name__ == "__main__":
    main()
