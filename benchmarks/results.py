"""Files of measurements: one file of JSON lines per measurement in `benchmarks/results/`. Lines are only ever added,
and each one states its hardware and software. `readme_tables.py` makes the README's tables from them."""

from __future__ import annotations

import csv
import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"
OLD_COLUMNS = {"left_out": "held_out"}
"""The present names of columns in old rows."""
ENVIRONMENT = ("processor", "threads", "torch", "commit", "measured")
"""Columns that every row has."""


def processor() -> str:
    """Returns the name of the GPU or, without one, of the processor and the instruction set that torch uses, because
    several generations may share a name: `AMD EPYC, AVX512`."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """Returns the checked-out commit, followed by `+` if tracked files have uncommitted changes, or `none`."""

    def git(*arguments: str) -> str:
        completed = subprocess.run(
            ["git", "-C", FOLDER.parent, *arguments], capture_output=True, text=True, check=False
        )
        return completed.stdout.strip() if completed.returncode == 0 else ""

    changed = git(
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":(top,exclude)benchmarks/results",  # relative to the top, because git runs in `benchmarks/`
        ":(top,exclude)benchmarks/LOG.md",
        ":(top,exclude)README.md",
    )
    return (git("rev-parse", "--short", "HEAD") or "none") + "+" * bool(changed)


def environment(threads: int | None = None) -> dict[str, Any]:
    """Returns processor, threads, torch version, commit and time of a measurement."""
    now = datetime.datetime.now().isoformat(timespec="seconds")
    return {
        "processor": processor(),
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "commit": commit(),
        "measured": now,
    }


def write_results(what: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Appends rows to the file of a measurement, prints them and returns the file. A row may override columns of
    `ENVIRONMENT`."""
    defaults, file = environment(), FOLDER / f"{what}.jsonl"
    FOLDER.mkdir(exist_ok=True)
    with open(file, "a", encoding="utf-8") as out:
        for row in rows:
            rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in row.items()}
            out.write(json.dumps(rounded | {name: row.get(name, defaults[name]) for name in ENVIRONMENT}) + "\n")
            print("  ".join(f"{name} {value}" for name, value in rounded.items() if name not in ENVIRONMENT))
    return file


def read_results(what: str) -> list[dict[str, Any]]:
    """Returns all rows of a measurement, oldest first. Rows that are older than November 26, 2026 are in CSV files,
    which lack some columns of `ENVIRONMENT` and have their day in the file name."""
    rows: list[dict[str, Any]] = []
    for file in sorted(FOLDER.glob(f"{what}_*.csv")):
        hardware, _, day = file.stem.removeprefix(f"{what}_").rpartition("_")
        if hardware.startswith("x86"):  # else the file belongs to a measurement whose name begins with the same words
            with open(file, newline="") as lines:
                for row in csv.DictReader(lines):
                    rows.append({"measured": day} | {name: number(text) for name, text in row.items() if text})
    new = FOLDER / f"{what}.jsonl"
    rows += [json.loads(line) for line in new.read_text().splitlines()] if new.exists() else []
    return [{OLD_COLUMNS.get(name, name): value for name, value in row.items()} for row in rows]


def number(text: str) -> int | float | str:
    """Converts a field of a CSV to a number if possible."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
