"""Plug-in folders of the core (such as `data/datasets/`) and of projects (such as `projects/decision/datasets/`). All
files in such a folder define classes with the same interface, and are found by their file names."""

from __future__ import annotations

from pathlib import Path

ROOT = __name__.partition(".")[0]
"""The root package, `chopmix`."""
FOLDER = next(folder for folder in Path(__file__).parents[1:3] if (folder / "models").is_dir())
"""The folder that contains the packages (`models/`, `tokenizers/`, ...): the folder `chopmix/` of an installed wheel,
or the top level of a checkout."""

TRAINED = Path(__file__).parents[1] / "trained"
"""The folder of the trained runs that chopmix contains."""


def projects() -> list[str]:
    """Returns the sorted names of the installed projects. A project is a folder in `projects/` with the code of one
    application, such as `whisper`."""
    return sorted(folder.name for folder in (FOLDER / "projects").glob("[a-z]*") if folder.is_dir())


def projects_with(module: str) -> list[str]:
    """Returns the names of the projects that contain a file `<module>.py`."""
    return [name for name in projects() if (FOLDER / "projects" / name / f"{module}.py").is_file()]


def modules_of(package: str) -> dict[str, str]:
    """Returns a mapping from file name to module name for the files of a plug-in package, and of the folders with the
    same name in all projects: `modules_of("data.datasets")["episodes"]` is
    `chopmix.projects.decision.datasets.episodes`."""
    kind = package.rpartition(".")[2]
    packages = [package, *(f"projects.{name}.{kind}" for name in projects())]
    modules = {
        file.stem: f"{ROOT}.{name}.{file.stem}"
        for name in packages
        for file in (FOLDER / name.replace(".", "/")).glob("*.py")
        if file.stem.isidentifier()
    }
    return dict(sorted(modules.items()))
