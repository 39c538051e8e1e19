"""Evaluates trained runs and writes rows of `benchmarks/results/`:

    python train.py configs/x.yaml --seeds 0,1,2
    python benchmarks/measure.py runs/x [runs/y ...] [--what NAME] [--below val/loss 1.88] [--with held_out=theo]
        [--guidance 2]

Every run in the folder (`seed-0`, ...; the runs of a sweep; or the folder itself) is evaluated as by `chopmix
evaluate`, on the complete val split and on test if its data set has one. A row contains all metrics, the number of
samples, the training seconds, the share of that time spent waiting for data, the share of padding and, if the run has
measured it, the attribution of each input. `--below` adds the training seconds at the first evaluation with a metric at
or below a value, `--guidance` adds the metrics of items generated with guidance, and `--with` adds a column for
conditions that the seed does not identify.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import yaml
from chopmix.experiment.run import Run, load_run
from chopmix.training import checkpoints as checkpoint
from chopmix.training.log import read_metrics
from results import write_results


def runs_in(folder: Path) -> list[Path]:
    """Returns the runs in a folder, or the folder itself if it is a run."""
    if (folder / "config.yaml").exists():
        return [folder]
    runs = sorted(file.parent for file in folder.rglob("config.yaml") if "assets" not in file.parts)
    if not runs:
        raise SystemExit(f"{folder} contains no run")
    return runs


def row_of(folder: Path, metric: str | None, value: float, guidance: float | None) -> dict[str, Any]:
    """Evaluates one run and returns its row."""
    run = load_run(folder)
    state = checkpoint.read_state(folder, checkpoint.read_step(folder, "last") or run.step)
    lines = read_metrics(folder / "metrics.jsonl")
    row: dict[str, Any] = {
        "run": str(folder),
        "seed": run.config.training.seed,
        "step": run.step,
        "seconds": state.seconds,
        "threads": state.threads,
        "precision": run.precision,
    }
    for split in ("val", "test"):
        if split in run.dataset().splits:
            row |= run.evaluate(split)
            row |= guided(run, split, row, guidance)
            row |= {f"{split}/samples": len(run.dataset().opened(split))} if run.dataset().holds_samples else {}
    for line in lines:
        row |= {name: figure for name, figure in line.items() if "/bits" in name or "/without_" in name}
    for name in ("waited", "padding"):
        shares = [line[f"train/{name}"] for line in lines if f"train/{name}" in line]
        row[f"train/{name}"] = statistics.mean(shares[1:] or shares)  # without the first, which opens the data
    if metric:
        reached = [line["seconds"] for line in lines if line.get(metric, float("inf")) <= value]
        row[f"seconds_to_{value}"] = min(reached, default="never")
    return row | parameters(run)


def guided(run: Run, split: str, plain: dict[str, Any], guidance: float | None) -> dict[str, Any]:
    """Returns the metrics of a split that differ with guidance, as `test/guided/accepted`."""
    if guidance is None:
        return {}
    figures = run.generating(guidance=guidance).evaluate(split)
    changed = {name: value for name, value in figures.items() if value != plain[name]}
    return {"guidance": guidance} | {name.replace("/", "/guided/", 1): value for name, value in changed.items()}


def parameters(run: Run) -> dict[str, int]:
    """Returns the number of parameters of the model."""
    return {"parameters": sum(parameter.numel() for parameter in run.model.parameters())}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--what", help="the name of the measurement (default: the path of the folder below runs/)")
    options.add_argument("--below", nargs=2, default=[None, "0"], metavar=("METRIC", "VALUE"))
    options.add_argument(
        "--with", dest="more", action="append", default=[], metavar="NAME=VALUE", help="an additional column"
    )
    options.add_argument("--guidance", type=float, metavar="W", help="also evaluate items generated with this guidance")
    chosen = options.parse_args()
    more = {name: yaml.safe_load(text) for name, _, text in (option.partition("=") for option in chosen.more)}
    metric, value = chosen.below
    for folder in chosen.runs:
        parts = folder.parts[folder.parts.index("runs") + 1 :] if "runs" in folder.parts else folder.parts[-1:]
        what = chosen.what or "_".join(parts)
        rows = [more | row_of(run, metric, float(value), chosen.guidance) for run in runs_in(folder)]
        write_results(f"reached_{what}", rows)


if __name__ == "__main__":
    main()
