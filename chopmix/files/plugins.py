"""Plug-in folders: every file in one, of the core (`data/datasets/`) or of a project (`projects/decision/datasets/`),
follows the same contract and is found by its name."""

from __future__ import annotations

from pathlib import Path

ROOT = __name__.partition(".")[0]
"""The package of everything: `chopmix`."""
FOLDER = Path(__file__).parents[2]
"""The folder that holds the packages."""


def projects() -> list[str]:
    """The names of the installed projects: parts of chopmix that only one system needs, each a folder."""
    return sorted(folder.name for folder in (FOLDER / "projects").glob("[a-z]*") if folder.is_dir())


def projects_with(module: str) -> list[str]:
    """The projects that have a module of this name."""
    return [name for name in projects() if (FOLDER / "projects" / name / f"{module}.py").is_file()]


def modules_of(package: str) -> dict[str, str]:
    """The modules of a package of plug-ins, and those in the folder of the same name of each project, by the names of
    their files: `modules_of("data.datasets")["episodes"]` is `chopmix.projects.decision.datasets.episodes`."""
    kind = package.rpartition(".")[2]
    packages = [package, *(f"projects.{name}.{kind}" for name in projects())]
    found = {
        file.stem: f"{ROOT}.{each}.{file.stem}"
        for each in packages
        for file in (FOLDER / each.replace(".", "/")).glob("*.py")
        if file.stem.isidentifier()
    }
    return dict(sorted(found.items()))
