"""Options of the commands that create an environment."""

from __future__ import annotations

import argparse
from typing import Any


def add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--setting", action="append", default=[], metavar="KEY=VALUE",
                         help="a keyword argument of the environment; repeatable")  # fmt: skip


def seed_number(text: str) -> int:
    """Returns the value of the option --seed as a number. Raises ArgumentTypeError unless the text is an integer of at
    least 0."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, not {text}")
    return int(text)


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the values of the options --setting by key. Values are parsed as YAML. Raises UsageError if a text does
    not have the form KEY=VALUE, or if a value is not a number, a boolean or a text."""
    import yaml

    from ...files.errors import UsageError

    settings = {}
    for text in options.setting:
        key, equals, value = text.partition("=")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not key or not equals or not isinstance(settings[key], int | float | str):
            raise UsageError(f"--setting {text}: a setting must have the form KEY=VALUE, such as grid=false")
    return settings
