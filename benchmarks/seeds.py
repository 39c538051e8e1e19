"""What runs of several seeds reached, as one CSV: `python train.py configs/x.yaml --seeds 0,1,2`, then

    python benchmarks/seeds.py runs/x [runs/y ...] [--below val/loss 1.88]

Besides the metrics of the last evaluation: the share of the training time that was spent waiting for data, and the share of
padding among the places of a batch. `--below` adds after how many training seconds an evaluation first saw that metric at or below that value.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from results import write_results


def rows(folder: Path, metric: str | None, value: float) -> list[dict]:
    """One row per seed of a run's folder."""
    found = []
    for run in sorted(each for each in folder.glob("seed-*") if each.is_dir()):
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        last = {"config": folder.name, "seed": int(run.name.removeprefix("seed-"))}
        for record in records:
            last |= {key: record[key] for key in record if not key.startswith("train/")}
        for name in ("waited", "padding"):
            each = [record[f"train/{name}"] for record in records if f"train/{name}" in record]
            last[f"train/{name}"] = statistics.mean(each[1:] or each)  # but for the first, which opens the data
        if metric:
            reached = [r["seconds"] for r in records if r.get(metric, float("inf")) <= value]
            last[f"seconds_to_{value}"] = min(reached, default="never")
        found.append(last)
    if not found:
        raise SystemExit(f"{folder} holds no seed-N folders: train with --seeds 0,1,2")
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--below", nargs=2, default=[None, "0"], metavar=("METRIC", "VALUE"))
    chosen = options.parse_args()
    metric, value = chosen.below
    for folder in chosen.runs:
        write_results(f"seeds_{folder.name}", rows(folder, metric, float(value)))


if __name__ == "__main__":
    main()
