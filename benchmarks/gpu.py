"""The first hour on a GPU: is it right, does it wait, does it compile again and again, how fast is it.

    python benchmarks/gpu.py                              # about 20 minutes, and the table
    python benchmarks/gpu.py --parts kernels,speed        # some of it
    python benchmarks/gpu.py --small --device cpu         # the script itself, in half a minute, without a GPU

    kernels      all ways of attending, and CTC, forward and backward: float32 beside the CPU's, bfloat16 beside float64
    losses       20 steps of several configurations: float32 beside the CPU's, and bfloat16
    waits        where the program waits for the GPU between two logs
    recompiles   what is compiled again while shapes change
    speed        tokens per second and share of a matrix product's speed, compiled and not; memory
    generation   tokens written per second

Each part runs in a process of its own. Every case is a row of `benchmarks/results/gpu.jsonl` as soon as it is measured;
what this dataset has measured at this commit is passed over the next time, unless `--again`. Data are drawn at random
(`stand_in.py`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import results
import torch
from gpu_parts.bench import Bench
from gpu_parts.fast import generation, speed
from gpu_parts.sound import kernels, losses, recompiles, waits
from rich.console import Console
from rich.table import Table

PARTS = {
    "kernels": kernels,
    "losses": losses,
    "waits": waits,
    "recompiles": recompiles,
    "speed": speed,
    "generation": generation,
}


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line a case."""
    found = Table("part", "case", "figures", "verdict")
    hidden = {"part", "case", "device", "small", "verdict", "took", "places", "reasons", *results.MADE_ON}
    for row in sorted(rows, key=lambda row: list(PARTS).index(row["part"])):
        shown = {name: value for name, value in row.items() if name not in hidden}
        figures = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
        )
        found.add_row(row["part"], row["case"], ", ".join(figures), row["verdict"])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--small", action="store_true", help="tiny shapes, few steps, all in one process")
    options.add_argument("--again", action="store_true", help="also what was measured before")
    options.add_argument(
        "--results", type=Path, help="the folder that rows are kept in (with --small: by default none)"
    )
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if unknown := {*parts} - {*PARTS}:
        options.error(f"there is no part {', '.join(sorted(unknown))}; possible: {', '.join(PARTS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU; --small --device cpu tries the script without one")
    with tempfile.TemporaryDirectory() as folder:
        results.FOLDER = chosen.results or (Path(folder) if chosen.small else results.FOLDER)
        run(parts, Bench(torch.device(chosen.device), chosen.small, chosen.again))


def run(parts: Sequence[str], bench: Bench) -> None:
    """Some parts, each in a process of its own, so that one that brings the GPU into disorder takes no other with it;
    then the table."""
    if bench.small or len(parts) == 1:
        for part in parts:
            PARTS[part](replace(bench, part=part))
    else:
        for part in parts:
            rest = ["--device", bench.device.type, "--results", str(results.FOLDER), *["--again"] * bench.again]
            subprocess.run([sys.executable, __file__, "--parts", part, *rest], check=False)
    if bench.small or len(parts) > 1:
        Console(width=180).print(table([row for row in bench.rows() if row["part"] in parts]))


if __name__ == "__main__":
    main()
