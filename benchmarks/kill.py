"""Whether a killed run loses anything: killed anywhere and started again, it must end with the bits of one that never
was.

    python benchmarks/kill.py --points 100                          # three experiments, 100 kills each
    python benchmarks/kill.py --points 0 --starts 100 --terms 20 --nan --leftovers

Three small experiments (a language model, a mix of inputs, an encoder-decoder) run once undisturbed: the reference,
whose file operations are noted. Then, for every point, the experiment starts in a fresh folder with a cache of its
own, kills itself before, amid or after one of these operations (or is killed after some seconds), and the same
command is given until it ends; every third time it is killed on the way once more. What is there then is compared
with the reference, clocks and speeds apart: checkpoints, pointers, metrics, summary, assets, token files; no
temporary file and no process may be left.

`--starts` gives the same folder to two runs at once, `--terms` asks runs to stop instead of killing them, `--nan`
lets a batch poison the weights, `--leftovers` kills runs whose texts are encoded by worker processes. Results are
appended to a file of the folder: the same command with the same `--folder` goes on. Most runs are forks of a process
that has imported everything; a share of them (`--fresh`) begins in a new interpreter, as users' runs do.
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
from killing.inside import obey
from killing.plans import Plan, Strike
from killing.points import try_points
from killing.tries import try_leftovers, try_nan, try_starts, try_terms


def table(campaign: Campaign) -> list[dict[str, Any]]:
    """What was tried, how often, and how often it went well."""
    rows = []
    for what in dict.fromkeys(name for name, _ in campaign.results):
        found = [each for (name, _), each in campaign.results.items() if name == what]
        bad = sum(bool(each["wrong"]) for each in found)
        rows.append({"experiment": what, "points": len(found), "equal": len(found) - bad, "different": bad})
    return rows


def show(campaign: Campaign) -> int:
    """Print the table and every difference; gives how many there are."""
    print(f"\n{'experiment':20}{'points':>8}{'equal':>8}{'different':>11}")
    for row in table(campaign):
        print("{experiment:20}{points:8}{equal:8}{different:11}".format(**row))
    bad = [each for each in campaign.results.values() if each["wrong"]]
    for each in bad:
        print(f"\n{each['what']} {each['trial']}, {each['point']}, again {each.get('again')}:")
        print(*(f"  {line}" for line in each["wrong"]), sep="\n")
    return len(bad)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--points", type=int, default=100, help="kills of each experiment")
    options.add_argument("--experiments", default=",".join(EXPERIMENTS), help="which of them, by commas")
    options.add_argument("--starts", type=int, default=0, metavar="N", help="pairs of starts in one folder")
    options.add_argument("--terms", type=int, default=0, metavar="N", help="SIGTERM and SIGINT at N places of each")
    options.add_argument("--nan", action="store_true", help="runs that meet a batch which spoils the weights")
    options.add_argument("--leftovers", action="store_true", help="kills while worker processes encode a text")
    options.add_argument("--fresh", type=float, default=0.2, help="the share of points tried in new interpreters")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--folder", type=Path, help="where runs and results go, to be gone on with (default: temporary)"
    )
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override for all runs")
    options.add_argument("--save", action="store_true", help="also keep the table in benchmarks/results")
    options.add_argument("--obey", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.obey:
        given = json.loads(chosen.obey)
        strike = given.pop("strike")
        obey(Plan(**given, strike=strike and Strike(**strike)), forked=False)
    names = chosen.experiments.split(",")
    place = chosen.folder or Path(tempfile.mkdtemp(prefix="kill-"))
    campaign = Campaign(place, names, seed=chosen.seed, fresh=chosen.fresh, settings=chosen.set)
    began = time.monotonic()
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
    print(f"\n{time.monotonic() - began:.0f} s, {campaign.folder}")
    if chosen.save:
        from results import write_results

        write_results("kill", table(campaign))
    if not bad and not chosen.folder:
        shutil.rmtree(campaign.folder)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
