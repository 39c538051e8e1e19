"""Tests on a GPU: correctness, synchronisation, recompilation and speed.

    python benchmarks/gpu.py                              # about 20 minutes; prints a table
    python benchmarks/gpu.py --parts kernels,speed        # only these parts
    python benchmarks/gpu.py --small --device cpu         # tests the script itself without a GPU in half a minute

    kernels      all attention kernels and CTC, forward and backward: float32 against the CPU, bfloat16 against float64
    losses       20 steps of several configurations: float32 against the CPU, and bfloat16
    waits        where the program waits for the GPU between two log lines
    recompiles   what is recompiled while shapes change
    speed        tokens per second and share of the speed of a matrix product, compiled and eager; memory
    generation   generated tokens per second

Each part runs in a separate process. Every case is written as a row of `benchmarks/results/gpu.jsonl` as soon as it is
measured. Cases that were already measured on this device at this commit are skipped unless `--again` is set. The data
are random (`stand_in.py`).
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
    """Returns a table with one line per case."""
    cases = Table("part", "case", "figures", "verdict")
    hidden = {"part", "case", "device", "small", "verdict", "took", "places", "reasons", *results.ENVIRONMENT}
    for row in sorted(rows, key=lambda row: list(PARTS).index(row["part"])):
        shown = {name: value for name, value in row.items() if name not in hidden}
        figures = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()
        )
        cases.add_row(row["part"], row["case"], ", ".join(figures), row["verdict"])
    return cases


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--parts", default=",".join(PARTS), help="a subset of: %(default)s")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--small", action="store_true", help="tiny shapes, few steps, all in one process")
    options.add_argument("--again", action="store_true", help="also measure cases that were measured before")
    options.add_argument("--results", type=Path, help="the folder of the rows (default with --small: none)")
    chosen = options.parse_args()
    parts = chosen.parts.split(",")
    if unknown := {*parts} - {*PARTS}:
        options.error(f"there is no part {', '.join(sorted(unknown))}; possible: {', '.join(PARTS)}")
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU; --small --device cpu tests the script without one")
    with tempfile.TemporaryDirectory() as folder:
        results.FOLDER = chosen.results or (Path(folder) if chosen.small else results.FOLDER)
        run(parts, Bench(torch.device(chosen.device), chosen.small, chosen.again))


def run(parts: Sequence[str], bench: Bench) -> None:
    """Runs parts, each in a separate process so that an error of the GPU does not affect other parts, and prints the
    table."""
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
