"""Options of a finished run that are changed when the run is loaded: `evaluate RUN tasks.picture.solver=heun`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..files.errors import RunError
from ..files.trust import NOTHING, Trust
from ..tokenizers.base import Part
from .run_folder import read_config
from .settings.config import Config, load_config


def changed_config(folder: Path, options: Sequence[str], trust: Trust = NOTHING) -> Config:
    """Returns the configuration of a run with other values of some options, written as `tasks.picture.solver=heun`.
    Raises RunError if the part of an option does not list it in `after_training`, and the errors of `read_config` and
    `load_config`."""
    config = read_config(folder, trust)
    for option in options:
        check_option(config, option)
    return load_config(folder, options, trust)


def check_option(config: Config, option: str) -> None:
    """Raises RunError if an option cannot be changed after training."""
    key = option.partition("=")[0].strip()
    section, *path = key.split(".")
    parts = {"tasks": config.tasks, "inputs": config.inputs}.get(section, {})
    possible = sorted(name for at in ("tasks", "inputs") for name in changeable(at, getattr(config, at)))
    part = parts.get(path[0]) if path else None
    for name in path[1:]:
        if part is not None and name in after_training(part):
            return
        part = part.options.get(name) if isinstance(part, Part) else None
    names = ", ".join(possible) if possible else "no option of this run"
    raise RunError(f"{key} cannot be changed after training; possible: {names}")


def changeable(path: str, parts: dict[str, object]) -> list[str]:
    """Returns the names of all options of parts, and of the parts in their options, that can be changed."""
    names = []
    for name, part in parts.items():
        if isinstance(part, Part):
            names += [f"{path}.{name}.{option}" for option in after_training(part)]
            names += changeable(f"{path}.{name}", part.options)
    return names


def after_training(part: object) -> Sequence[str]:
    """Returns the options of a part that its class lists in `after_training`."""
    return getattr(part.target, "after_training", ()) if isinstance(part, Part) else ()
