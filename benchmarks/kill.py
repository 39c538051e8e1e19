"""Tests that runs that are killed at any point and restarted end bit-identical to an undisturbed run.

    python benchmarks/kill.py --points 100                          # three experiments, 100 kills each
    python benchmarks/kill.py --points 0 --starts 100 --terms 20 --nan --leftovers

Three small experiments (a language model, several modalities, an encoder-decoder) first run undisturbed. These
reference runs record their file operations. For every point, the experiment starts in a new folder with a separate
cache and kills itself before, during or after one of these operations, or is killed after some seconds. The same
command is then repeated until it succeeds; every third run is killed a second time. Afterwards checkpoints, pointers,
metrics, summary, assets and token files must be equal to the reference (except times and speeds), and no temporary
file and no process may be left.

`--starts` starts two runs in the same folder at once, `--terms` sends signals that ask runs to stop, `--nan` trains on
a batch that makes the weights NaN, `--leftovers` kills runs whose worker processes encode texts. Results are appended
to a file in the folder: the same command with the same `--folder` continues. Most runs are forks of a process that has
imported all modules; a share of them (`--fresh`) starts in a new interpreter, as for users.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from killing.experiments import EXPERIMENTS, Campaign
from killing.inside import run_plan
from killing.plans import Plan, Strike
from killing.points import try_points
from killing.tries import try_leftovers, try_nan, try_starts, try_terms


def table(campaign: Campaign) -> list[dict[str, Any]]:
    """Returns a row for each experiment: the numbers of points, of equal and of different results."""
    rows = []
    for what in dict.fromkeys(name for name, _ in campaign.results):
        results = [result for (name, _), result in campaign.results.items() if name == what]
        bad = sum(bool(result["wrong"]) for result in results)
        rows.append({"experiment": what, "points": len(results), "equal": len(results) - bad, "different": bad})
    return rows


def show(campaign: Campaign) -> int:
    """Prints the table and every difference. Returns the number of points with differences."""
    print(f"\n{'experiment':20}{'points':>8}{'equal':>8}{'different':>11}")
    for row in table(campaign):
        print("{experiment:20}{points:8}{equal:8}{different:11}".format(**row))
    bad = [result for result in campaign.results.values() if result["wrong"]]
    for result in bad:
        print(f"\n{result['what']} {result['trial']}, {result['point']}, again {result.get('again')}:")
        print(*(f"  {line}" for line in result["wrong"]), sep="\n")
    return len(bad)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=100, help="number of kills per experiment")
    options.add_argument("--experiments", default=",".join(EXPERIMENTS), help="comma-separated names")
    options.add_argument("--starts", type=int, default=0, metavar="N", help="pairs of starts in one folder")
    options.add_argument("--terms", type=int, default=0, metavar="N", help="SIGTERM and SIGINT at N points of each")
    options.add_argument("--nan", action="store_true", help="runs with a batch that makes the weights NaN")
    options.add_argument("--leftovers", action="store_true", help="kills while worker processes encode a text")
    options.add_argument("--fresh", type=float, default=0.2, help="share of points with a new interpreter")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--folder", type=Path, help="folder of runs and results, to be continued later (default: temporary)"
    )
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override for all runs")
    options.add_argument("--save", action="store_true", help="also write the table to benchmarks/results")
    options.add_argument("--obey", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.obey:
        fields = json.loads(chosen.obey)
        strike = fields.pop("strike")
        run_plan(Plan(**fields, strike=strike and Strike(**strike)), forked=False)
    names = chosen.experiments.split(",")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    campaign = Campaign(folder, names, seed=chosen.seed, fresh=chosen.fresh, settings=chosen.set)
    start = time.monotonic()
    for name in names if chosen.points else ():
        try_points(campaign, name, chosen.points)
    if chosen.starts:
        try_starts(campaign, chosen.starts)
    if chosen.terms:
        try_terms(campaign, names, chosen.terms)
    if chosen.nan:
        try_nan(campaign)
    if chosen.leftovers:
        try_leftovers(campaign)
    bad = show(campaign)
    print(f"\n{time.monotonic() - start:.0f} s, {campaign.folder}")
    if chosen.save:
        from results import write_results

        write_results("kill", table(campaign))
    if not bad and not chosen.folder:
        shutil.rmtree(campaign.folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
