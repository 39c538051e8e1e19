"""The runs that a benchmark measures, trained first where they are not there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from chopmix.experiment.run_folder import RunError
from chopmix.experiment.settings.config import ConfigError, load_config
from chopmix.experiment.train import train


def trained(config: str | Path, folder: Path, changes: Sequence[str]) -> Path:
    """The folder of a finished run of this configuration with these overrides; one that was stopped goes on. The
    program ends where the run is asked to stop once more, or is of another configuration: neither is measured."""
    try:
        _, status = train(load_config(config, [*changes, f"out={folder}"]))
    except (ConfigError, RunError) as error:
        sys.exit(str(error))
    if status:
        sys.exit(status)
    return folder
