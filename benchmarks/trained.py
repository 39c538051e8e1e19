"""Trains the runs that a benchmark measures, unless they exist."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.experiment.train import train
from chopmix.files.errors import RunError


def trained(config: str | Path, folder: Path, changes: Sequence[str]) -> Path:
    """Returns the folder of a finished run of this configuration with these overrides; an interrupted run is continued.
    The program exits if the run is interrupted again or belongs to another configuration, so neither is measured."""
    try:
        _, status = train(load_config(config, [*changes, f"out={folder}"]))
    except (ConfigError, RunError) as error:
        sys.exit(str(error))
    if status:
        sys.exit(status)
    return folder
