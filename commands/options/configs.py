"""Arguments that name a configuration: `CONFIG [KEY=VALUE...]`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...experiment.settings.config import Config


from .runs import add_trust


def add_config(command: argparse.ArgumentParser) -> None:
    """Add the arguments CONFIG (a YAML file or the folder of a run), KEY=VALUE overrides and --trust."""
    command.add_argument("config", metavar="CONFIG", help="a YAML file, or a run's folder")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE")
    add_trust(command)


def given_config(options: argparse.Namespace) -> Config:
    """The configuration of a YAML file with overrides, or of a run's folder. Raises ConfigError with all its problems,
    RunError for an imported run, which has no data."""
    from ...experiment.folder.reading import RunError, read_config
    from ...experiment.settings.config import load_config

    folder = Path(options.config)
    is_run = os.path.isfile(folder / "config.yaml") and not options.overrides
    config = read_config(folder, options.trust) if is_run else load_config(options.config, options.overrides)
    if config.data.dataset is None:
        raise RunError(f"{folder} was imported and has no data of its own: there is nothing to see")
    return config
