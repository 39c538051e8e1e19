"""Plug-in folders, of the core (`data/datasets/`) or of a project (`projects/decision/datasets/`). All files in them
follow the same contract and are found by their names."""

from __future__ import annotations

from pathlib import Path

ROOT = __name__.partition(".")[0]
"""The root package, `chopmix`."""
FOLDER = Path(__file__).parents[2]
"""The folder that contains the packages."""


def projects() -> list[str]:
    """Returns the names of the installed projects. A project is a folder with parts that only one system needs."""
    return sorted(folder.name for folder in (FOLDER / "projects").glob("[a-z]*") if folder.is_dir())


def projects_with(module: str) -> list[str]:
    """Returns the projects that have a module of this name."""
    return [name for name in projects() if (FOLDER / "projects" / name / f"{module}.py").is_file()]


def modules_of(package: str) -> dict[str, str]:
    """Returns the modules of a package of plug-ins and of the folders with the same name in all projects, by the names
    of their files: `modules_of("data.datasets")["episodes"]` is `chopmix.projects.decision.datasets.episodes`."""
    kind = package.rpartition(".")[2]
    packages = [package, *(f"projects.{name}.{kind}" for name in projects())]
    modules = {
        file.stem: f"{ROOT}.{name}.{file.stem}"
        for name in packages
        for file in (FOLDER / name.replace(".", "/")).glob("*.py")
        if file.stem.isidentifier()
    }
    return dict(sorted(modules.items()))
