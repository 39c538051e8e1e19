"""Relative paths in a YAML file of the user: paths of data are relative to the folder of the file."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...data.base import Dataset
from ...files.printing import say_aside
from ...files.reading import DataError, matching
from .registry import registry_of


def locate(tree: Any, folder: Path) -> None:
    """Replaces the relative paths in `data.dataset` of a configuration (the options that `Dataset.paths` names, also of
    the data sets of a mixture) by paths that begin with `folder`, the folder of the YAML file. A path that exists only
    in the working directory is not changed, and a notice says so. An address, a path that begins with `~`, and a name
    on a server are not changed. Nothing is changed if `folder` is the working directory."""
    data = tree.get("data") if isinstance(tree, dict) else None
    if isinstance(data, dict) and "dataset" in data and not os.path.samefile(folder, "."):
        data["dataset"] = located(data["dataset"], folder, "data.dataset")


def located(value: Any, folder: Path, key: str) -> Any:
    """Returns a part of `data.dataset` with replaced paths; see `locate`. `key` is its place in messages."""
    return located_paths(value, folder, key) if isinstance(value, dict) else value


def located_paths(value: dict[str, Any], folder: Path, key: str) -> dict[str, Any]:
    """Returns the mapping of a data set, in which relative paths begin at the folder."""
    dataset = None
    if isinstance(value.get("use"), str):
        with suppress(LookupError):  # the checks of the configuration report it
            dataset = registry_of((Dataset,)).find(value["use"])[1]
    paths = getattr(dataset, "paths", ())
    return {
        name: each_text(each, functools.partial(placed, folder=folder, key=f"{key}.{name}", dataset=dataset))
        if name in paths else located(each, folder, f"{key}.{name}")
        for name, each in value.items()
    }  # fmt: skip


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a value with every text changed: a text, or the elements of a list, or the values of a mapping."""
    if isinstance(value, dict):
        return {name: each_text(each, change) for name, each in value.items()}
    if isinstance(value, list):
        return [each_text(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def placed(path: str, folder: Path, key: str, dataset: type[Dataset]) -> str:
    """Returns the path or pattern from which the data are read; see `locate`."""
    if os.path.isabs(path) or path.startswith("~") or "://" in path:
        return path
    inside = os.path.join(folder, path)
    if exists(inside):
        return inside
    if exists(path):
        notify(f"{key}: {path} is read from the working directory, because it does not exist in {folder}, the folder "
               "of the YAML file")  # fmt: skip
        return path
    return path if dataset.on_server else inside


def exists(pattern: str) -> bool:
    """Returns whether a path exists, or whether a pattern matches a file: `*.txt`, `train-{000..009}.tar`."""
    with suppress(DataError, ValueError):  # the data set reports it
        return os.path.exists(pattern) or bool(matching(re.sub(r"\{\d+\.\.\d+\}", "*", pattern)))
    return False


@functools.cache
def notify(text: str) -> None:
    """Prints a notice, once for all runs of a command."""
    say_aside(text)
