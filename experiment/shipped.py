"""The configurations that chopmix ships (`configs/`), and copies of them (`chopmix init`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..files.errors import RunError
from ..files.plugins import FOLDER
from ..files.reading import read_text
from ..files.writing import make_folder, write_bytes
from .settings.hints import nearest

CONFIGS = FOLDER / "configs"


def names() -> list[str]:
    """Returns the names of all configurations: `quickstart`, `vision/mnist`, ..."""
    return sorted(file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.yaml"))


def listed() -> Iterator[tuple[str, str]]:
    """Yields (name, first line of the header) for all configurations."""
    for name in names():
        yield name, read_text(CONFIGS / f"{name}.yaml").partition("\n")[0].removeprefix("# ")


def needed_by(name: str) -> list[str]:
    """Returns the names of the configurations whose runs a configuration needs, in the order in which they must be
    trained, then the name itself."""
    order: list[str] = []

    def visit(name: str) -> None:
        for run in runs_in(yaml.safe_load(read_text(CONFIGS / f"{name}.yaml"))):
            if run not in order and run != name and (CONFIGS / f"{run}.yaml").is_file():
                visit(run)
        if name not in order:
            order.append(name)

    visit(name)
    return order


def runs_in(tree: Any) -> Iterator[str]:
    """Yields the names in all values `runs/NAME` of a tree."""
    if isinstance(tree, str) and tree.startswith("runs/"):
        yield tree.removeprefix("runs/")
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    for child in children:
        yield from runs_in(child)


def copy_configs(name: str, folder: Path) -> list[Path]:
    """Copies a configuration, and those of the runs that it needs, to `folder/configs/NAME.yaml`. Returns the files in
    the order in which they must be trained. A file that exists with the same content is kept. Raises RunError if there
    is no such configuration, or if a file with another content exists."""
    name = name.removeprefix("configs/").removesuffix(".yaml")
    if name not in names():
        raise RunError(
            f"there is no configuration {name!r}{nearest(name, names(), list_all=False)}; `chopmix init` lists all"
        )
    files = []
    for needed in needed_by(name):
        file, content = folder / "configs" / f"{needed}.yaml", (CONFIGS / f"{needed}.yaml").read_bytes()
        if file.exists() and file.read_bytes() != content:
            raise RunError(f"{file} exists already with another content; choose another folder")
        make_folder(file.parent)
        write_bytes(file, content)
        files.append(file)
    return files
