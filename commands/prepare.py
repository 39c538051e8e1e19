"""`chopmix prepare CONFIG`: prepares the data of a configuration, so that its runs start quickly."""

from __future__ import annotations

import argparse

from .options.shared import add_trust, trust_of

HELP = "prepare the data of a YAML file: count shards, tokenize texts, read tables"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file (see configs/)")
    command.add_argument("overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. data.dataset.limit=1000")
    add_trust(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status 0."""
    from ..experiment.prepare import prepare_data
    from ..experiment.settings.config import load_config

    prepare_data(load_config(options.config, options.overrides, trust_of(options)))
    return 0
