"""`chopmix examples CONFIG`: writes samples of a data set to files and prints `chopmix predict` commands for them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.errors import UsageError
from .options.shared import add_config, config_of

HELP = "write samples of a data set to files that `chopmix predict` reads"


def add_options(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument("--split", default="test", metavar="S", help="train, val or test (the default)")
    command.add_argument("--number", type=int, default=3, metavar="N", help="number of samples (default: 3)")
    command.add_argument("--output", metavar="DIR", default="examples", help="output folder (default: examples)")


def run(options: argparse.Namespace) -> None:
    from ..experiment.examples import write_examples
    from ..files.printing import printable

    config = config_of(options)
    if options.number < 1:
        raise UsageError(f"--number is {options.number}; it must be at least 1")
    for command in write_examples(config, options.split, options.number, Path(options.output)):
        print(printable(command))
