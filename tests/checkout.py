"""Folders of the repository, its packages and its configurations, for the tests."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
BENCHMARKS, CONFIGS = ROOT / "benchmarks", ROOT / "configs"
PACKAGES = (
    "files",
    "models",
    "tokenizers",
    "tasks",
    "data",
    "inference",
    "training",
    "experiment",
    "commands",
    "projects",
)
"""The packages: each imports only from earlier ones and itself. `files` is in `chopmix/`, the rest at the top."""


def needs_missing_project(file: Path) -> bool:
    """Whether the header of a YAML names a project that does not exist here: "Needs the project `decision`"."""
    head = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    return any(not (ROOT / "projects" / name).is_dir() for name in re.findall(r"[Nn]eeds the project `(\w+)`", head))


def every_yaml() -> list[Path]:
    """All configurations in a stable order, except those that need a project which does not exist here."""
    return [file for file in sorted(CONFIGS.rglob("*.yaml")) if not needs_missing_project(file)]
