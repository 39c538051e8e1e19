"""What trained runs reach, as rows of `benchmarks/results/`: first `python train.py configs/x.yaml --seeds 0,1,2`, then

    python benchmarks/measure.py runs/x [runs/y ...] [--what NAME] [--below val/loss 1.88] [--with held_out=theo]
        [--guidance 2]

Every run in the folder (`seed-0`, ...; a sweep's cells; or the folder itself) is evaluated as `chopmix evaluate` does
it, on the whole of val and, where its data have one, of test: all figures, how many samples they are of, and the
seconds of its training. Besides: the share of that time that was spent waiting for data, the share of padding, what
each input is worth where the run has told it. `--below` adds after how many training seconds an evaluation first saw
a metric at or below a value, `--guidance` what is generated with it, `--with` a column that tells apart what the seed
does not.
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
    """The runs of a folder, or the folder itself."""
    if (folder / "config.yaml").exists():
        return [folder]
    found = sorted(file.parent for file in folder.rglob("config.yaml") if "assets" not in file.parts)
    if not found:
        raise SystemExit(f"{folder} holds no run")
    return found


def row_of(folder: Path, metric: str | None, value: float, guidance: float | None) -> dict[str, Any]:
    """The figures of one run."""
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
            row |= {f"{split}/samples": len(run.dataset().open(split))} if run.dataset().holds_samples else {}
    for line in lines:
        row |= {name: told for name, told in line.items() if "/bits" in name or "/without_" in name}
    for name in ("waited", "padding"):
        each = [line[f"train/{name}"] for line in lines if f"train/{name}" in line]
        row[f"train/{name}"] = statistics.mean(each[1:] or each)  # but for the first, which opens the data
    if metric:
        reached = [line["seconds"] for line in lines if line.get(metric, float("inf")) <= value]
        row[f"seconds_to_{value}"] = min(reached, default="never")
    return row | parameters(run)


def guided(run: Run, split: str, plain: dict[str, Any], guidance: float | None) -> dict[str, Any]:
    """What guidance changes about a split's figures, as `test/guided/accepted`."""
    if guidance is None:
        return {}
    found = run.generating(guidance=guidance).evaluate(split)
    changed = {name: value for name, value in found.items() if value != plain[name]}
    return {"guidance": guidance} | {name.replace("/", "/guided/", 1): value for name, value in changed.items()}


def parameters(run: Run) -> dict[str, int]:
    """How large the model is."""
    return {"parameters": sum(parameter.numel() for parameter in run.model.parameters())}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--what", help="under which name (default: the folder's, below runs/)")
    options.add_argument("--below", nargs=2, default=[None, "0"], metavar=("METRIC", "VALUE"))
    options.add_argument(
        "--with", dest="more", action="append", default=[], metavar="NAME=VALUE", help="one more column"
    )
    options.add_argument("--guidance", type=float, metavar="W", help="also the figures of items generated with it")
    chosen = options.parse_args()
    more = {name: yaml.safe_load(told) for name, _, told in (each.partition("=") for each in chosen.more)}
    metric, value = chosen.below
    for folder in chosen.runs:
        parts = folder.parts[folder.parts.index("runs") + 1 :] if "runs" in folder.parts else folder.parts[-1:]
        what = chosen.what or "_".join(parts)
        rows = [more | row_of(each, metric, float(value), chosen.guidance) for each in runs_in(folder)]
        write_results(f"reached_{what}", rows)


if __name__ == "__main__":
    main()
