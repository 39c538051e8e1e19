"""What models learn from the examples in their context, compared with regression and other rivals, over several seeds.

    python benchmarks/in_context.py configs/in_context/linear.yaml --seeds 0,1,2 --functions 4000

trains what is not trained yet, in runs/in_context/NAME/seed-N, and adds a row for each seed, kind of data and number of
examples to `benchmarks/results/`: mean squared errors on `--functions` functions, half of which choose the rivals'
settings, and the paired differences between the model and each rival; of rules, the share of right answers. Each figure
has a standard error (`se`), and each seed has functions of its own. Then it prints, at `--at` examples, the mean over
the seeds, the standard deviation between them, and the mean standard error of one. `--set KEY=VALUE` changes the
configuration of all.
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
from chopmix.projects.in_context.scoring import ERROR, rows_of
from results import write_results
from trained import trained


def measured(config: str, seed: int, functions: int, changes: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of one seed, which is trained first where it is not there."""
    folder = Path("runs/in_context") / Path(config).stem / f"seed-{seed}"
    run = load_run(trained(config, folder, [*changes, f"training.seed={seed}"]))

    def say(text: str) -> None:
        print(f"{folder}: {text}", file=sys.stderr)

    if isinstance(run.dataset(), Rules):
        return [{"seed": seed} | row for row in followed(run, functions, say)]
    return [{"seed": seed} | row for row in rows_of(learned(run, functions, say)[0])]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("config")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--functions", type=int, default=1000)
    options.add_argument("--at", type=int, default=8)
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = options.parse_args()
    seeds = map(int, given.seeds.split(","))
    rows = [row for seed in seeds for row in measured(given.config, seed, given.functions, given.set)]
    write_results(f"in_context_{Path(given.config).stem}", rows)
    for line in summary(rows, given.at):
        print(line)


def summary(rows: Sequence[Mapping[str, Any]], at: int) -> list[str]:
    """A sentence for each figure after so many examples, over all seeds."""
    found = defaultdict(list)
    for row in rows:
        for name in row:
            if name + ERROR in row and row["examples"] == at:
                found[row.get("where", row.get("rules")), name].append((row[name], row[name + ERROR]))
    lines = []
    for (kind, name), figures in found.items():
        values, errors = zip(*figures)
        between = f", {statistics.stdev(values):.2g} between seeds" if len(values) > 1 else ""
        told = f"{statistics.mean(values):.4g}{between}, standard error of one {statistics.mean(errors):.2g}"
        lines.append(f"{kind}, after {at} examples, {name}: {told}")
    return lines


if __name__ == "__main__":
    main()
