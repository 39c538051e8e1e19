"""Options of the commands that make an environment."""

from __future__ import annotations

import argparse
from typing import Any


def add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE",
                         help="what the environment itself takes; may be given several times")  # fmt: skip


def whole_number(text: str) -> int:
    """The value of an option that seeds draws. Raises ArgumentTypeError for a negative number, or none."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, not {text}")
    return int(text)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings by key, as YAML values. Raises RunError for one that is none."""
    import yaml

    from ...experiment.run_folder import RunError

    found = {}
    for given in options.setting:
        key, equals, value = given.partition("=")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not key or not equals or not isinstance(found[key], int | float | str):
            raise RunError(f"--setting {given}: a setting is KEY=VALUE, such as grid=false")
    return found
