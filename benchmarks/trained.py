"""The runs that a benchmark measures, trained first where they are not there."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from chopmix.experiment.settings.config import load_config
from chopmix.experiment.train import train


def trained(config: str | Path, folder: Path, changes: Sequence[str]) -> Path:
    """The folder of a finished run of this configuration with these overrides. A run that was stopped goes on; where it
    is asked to stop once more the program ends with its status, so that half a training is never measured."""
    if not (folder / "summary.json").exists():
        _, status = train(load_config(config, [*changes, f"out={folder}"]))
        if status:
            sys.exit(status)
    return folder
