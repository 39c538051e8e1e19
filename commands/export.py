"""`chopmix export RUN DIR`: turn a run into a Hugging Face model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_checkpoint, load

HELP = "turn a run into a Hugging Face model directory"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("directory", metavar="DIR")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.importing.export import export_directory
    from ..tokenizers.files.printing import printable

    print(printable(export_directory(load(options), Path(options.directory))))
