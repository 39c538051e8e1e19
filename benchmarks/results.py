"""Where benchmark figures are kept: one CSV per benchmark, hardware, torch version and date; printed as well."""

from __future__ import annotations

import csv
import datetime
import platform
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def hardware() -> str:
    """A short name of the machine's processor or GPU and its number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name().lower().replace(" ", "-")
    return f"{platform.machine()}-{torch.get_num_threads()}threads"


def write_results(what: str, rows: list[dict]) -> Path:
    """Write and print rows of figures; gives the file."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    version = torch.__version__.split("+")[0]
    file = FOLDER / f"{what}_{hardware()}_torch{version}_{datetime.date.today()}.csv"
    FOLDER.mkdir(exist_ok=True)
    with open(file, "w", newline="") as out:
        writer = csv.DictWriter(out, keys)
        writer.writeheader()
        for row in rows:
            rounded = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
            writer.writerow(rounded)
            print("  ".join(f"{key} {value}" for key, value in rounded.items()))
    return file
