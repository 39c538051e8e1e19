"""Where figures are kept: one file of JSON lines per measurement in `benchmarks/results/`, which is only ever added
to, every line with what it was measured on. `readme_tables.py` makes the README's tables of them."""

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
from chopmix.experiment.settings.hints import RENAMED

FOLDER = Path(__file__).parent / "results"
MADE_ON = ("processor", "threads", "torch", "commit", "measured")
"""Columns that every row has."""
COLUMNS = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RENAMED.items()}
"""What columns that have the name of a setting are called now."""


def processor() -> str:
    """The name of the GPU if there is one, else of the processor, as its maker calls it, with the instruction set that
    torch uses: one name may stand for several generations. `AMD EPYC, AVX512`."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def commit() -> str:
    """The commit that is checked out, with `+` behind it where tracked files were changed since; `none` outside git."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", FOLDER.parent, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    changed = git(
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":(top,exclude)benchmarks/results",  # from the top: git is asked in `benchmarks/`
        ":(top,exclude)benchmarks/LOG.md",
        ":(top,exclude)README.md",
    )
    return (git("rev-parse", "--short", "HEAD") or "none") + "+" * bool(changed)


def made_on(threads: int | None = None) -> dict[str, Any]:
    """Processor, threads, torch, commit and time: what a figure is worth nothing without."""
    now = datetime.datetime.now().isoformat(timespec="seconds")
    return {
        "processor": processor(),
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__.split("+")[0],
        "commit": commit(),
        "measured": now,
    }


def write_results(what: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Append rows of figures to a measurement's file, and print them; gives the file. A row may bring its own of
    what it was made on."""
    own, file = made_on(), FOLDER / f"{what}.jsonl"
    FOLDER.mkdir(exist_ok=True)
    with open(file, "a", encoding="utf-8") as out:
        for row in rows:
            told = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}
            out.write(json.dumps(told | {name: row.get(name, own[name]) for name in MADE_ON}) + "\n")
            print("  ".join(f"{name} {value}" for name, value in told.items() if name not in MADE_ON))
    return file


def read_results(what: str) -> list[dict[str, Any]]:
    """All rows of a measurement, oldest first. Those of before November 26, 2026 are in CSVs, lack some of
    `MADE_ON`, and have the day that their file's name tells. A column that had the old name of a setting has the
    new one."""
    found: list[dict[str, Any]] = []
    for file in sorted(FOLDER.glob(f"{what}_*.csv")):
        hardware, _, day = file.stem.removeprefix(f"{what}_").rpartition("_")
        if hardware.startswith("x86"):  # else another measurement, whose name begins in the same way
            with open(file, newline="") as lines:
                for row in csv.DictReader(lines):
                    found.append({"measured": day} | {name: number(told) for name, told in row.items() if told})
    new = FOLDER / f"{what}.jsonl"
    found += [json.loads(line) for line in new.read_text().splitlines()] if new.exists() else []
    return [{COLUMNS.get(name, name): told for name, told in row.items()} for row in found]


def number(text: str) -> int | float | str:
    """What a field of a CSV says."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
