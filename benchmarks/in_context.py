"""What models learn from the examples in their context, beside regression and other rivals, over several seeds.

    python benchmarks/in_context.py configs/in_context/linear.yaml --seeds 0,1,2

trains what is not trained yet, in runs/in_context/NAME/seed-N, and adds a row for each seed, kind of data and number of
examples to `benchmarks/results/`: squared errors on `--functions` functions of val, half of which choose the rivals'
settings, or, of rules, how many of so many answers are right. Then it says the mean over the seeds at `--at` examples.
`--set KEY=VALUE` changes the configuration of all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chopmix.data.datasets.rules import Rules
from chopmix.experiment.run import load_run
from chopmix.experiment.views.learned import followed, learned
from chopmix.inference.in_time.in_context import rows_of
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
    found = defaultdict(list)
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and row["examples"] == given.at:
                found[row.get("where", row.get("rules")), name].append(value)
    for (kind, name), values in found.items():
        told = f" +- {statistics.stdev(values):.4g}" if len(values) > 1 else ""
        print(f"{kind}, after {given.at} examples, {name}: {statistics.mean(values):.4g}{told}")


if __name__ == "__main__":
    main()
