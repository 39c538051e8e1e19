"""`chopmix init CONFIG DIR`: copies a configuration of chopmix, and those of the runs that it needs."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "copy a configuration of chopmix into a folder"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", nargs="?", metavar="CONFIG",
                         help="the name, such as quickstart or vision/mnist; without it, all are listed")  # fmt: skip
    command.add_argument("folder", nargs="?", type=Path, default=Path("."), metavar="DIR",
                         help="the folder in which configs/CONFIG.yaml is written (default: .)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Returns the exit status 0."""
    from ..experiment.shipped import copy_configs, listed
    from ..files.printing import shell_word

    if options.config is None:
        for name, title in listed():
            print(f"{name:34} {title}")
        return 0
    for file in copy_configs(options.config, options.folder):
        print(f"  chopmix train {shell_word(file)}")
    return 0
