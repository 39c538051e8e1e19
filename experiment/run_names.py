"""The names of runs: folders, and the trained runs that chopmix contains."""

from __future__ import annotations

import os
from pathlib import Path

from ..files.plugins import TRAINED


def folder_of_run(name: str | Path) -> Path:
    """Returns the folder of a run. A name such as `quickstart` without such a local file or folder is that of a trained
    run that chopmix contains."""
    folder, contained = Path(name), TRAINED / name
    is_name = len(folder.parts) == 1 and not os.path.lexists(folder)
    return contained if is_name and os.path.isfile(contained / "config.yaml") else folder


def is_contained(folder: Path) -> bool:
    """Returns whether a folder is a run that chopmix contains. Nothing is written into it."""
    return folder.is_relative_to(TRAINED)


def name_of(folder: Path) -> str:
    """Returns the name with which a command can open a run: `quickstart` for a run that chopmix contains, else its
    folder."""
    return folder.name if is_contained(folder) else str(folder)


def output_folder(folder: Path) -> Path:
    """Returns the folder into which a command writes about a run by default: the folder of the run, or the working
    directory for a run that chopmix contains."""
    return Path() if is_contained(folder) else folder
