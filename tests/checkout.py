"""Where the tests find what they are about."""

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
"""The packages: each imports from those before it, and from itself. `files` is in `chopmix/`, the others at the top."""


def needs_missing_project(file: Path) -> bool:
    """Whether the header of a YAML says that it needs a project which is not here: "Needs the project `decision`"."""
    head = " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))
    return any(not (ROOT / "projects" / name).is_dir() for name in re.findall(r"[Nn]eeds the project `(\w+)`", head))


def every_yaml() -> list[Path]:
    """All configurations, in a stable order, without those that need a project which is not here."""
    return [file for file in sorted(CONFIGS.rglob("*.yaml")) if not needs_missing_project(file)]
