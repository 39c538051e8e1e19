"""Where figures are kept: one CSV per measurement in `benchmarks/results/`, never written over, every row with what it was
measured on. `readme_tables.py` makes the README's tables of them."""

from __future__ import annotations

import csv
import datetime
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"
MADE_ON = ("processor", "threads", "torch", "commit", "measured")
"""Columns that every row has."""


def processor() -> str:
    """The name of the GPU where there is one, else of the processor, as the maker calls it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
        ":!benchmarks/results",
        ":!benchmarks/LOG.md",
        ":!README.md",
    )
    return (git("rev-parse", "--short", "HEAD") or "none") + "+" * bool(changed)


def made_on(threads: int | None = None) -> dict[str, Any]:
    """Processor, threads, torch, commit and time: what a figure is worth nothing without."""
    now = datetime.datetime.now().isoformat(timespec="seconds")
    return {"processor": processor(), "threads": threads or torch.get_num_threads(), "torch": torch.__version__.split("+")[0],
            "commit": commit(), "measured": now}  # fmt: skip


def write_results(what: str, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows of figures to a new file, and print them; gives the file. A row may bring its own of what it was made on."""
    own = made_on()
    rows = [{**row, **{name: row.get(name, own[name]) for name in MADE_ON}} for row in rows]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    FOLDER.mkdir(exist_ok=True)
    stamp = own["measured"].replace(":", "").replace("-", "")
    for number in range(1000):  # several measurements of one second
        file = FOLDER / f"{what}_{stamp}{f'_{number}' if number else ''}.csv"
        try:
            out = open(file, "x", newline="")
            break
        except FileExistsError:
            continue
    with out:
        writer = csv.DictWriter(out, keys)
        writer.writeheader()
        for row in rows:
            rounded = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow(rounded)
            print("  ".join(f"{key} {value}" for key, value in rounded.items() if key not in MADE_ON and value != ""))
    return file


def read_results(what: str) -> list[dict[str, str]]:
    """All rows of a measurement, oldest first; those of before November 26, 2026 lack some of `MADE_ON`, and have the day that
    their file's name tells."""
    found = []
    for file in sorted(FOLDER.glob(f"{what}_*.csv")):
        rest = file.stem.removeprefix(f"{what}_")
        old = "_torch" in rest
        if not (rest[0].isdigit() or (old and rest.split("_")[0] in ("x86", "x86_64"))):
            continue  # another measurement, whose name begins in the same way
        with open(file, newline="") as lines:
            for row in csv.DictReader(lines):
                found.append({"measured": rest.rpartition("_")[2], **row} if old else row)
    return sorted(found, key=lambda row: row["measured"])
