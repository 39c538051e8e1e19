"""`chopmix import DIR RUN`: imports a Hugging Face model directory as a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_trust, trust_of

HELP = "import a Hugging Face model directory as a run"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("directory", metavar="DIR", help="a folder with config.json and model.safetensors")
    command.add_argument("run", metavar="RUN", help="the folder of the new run")
    command.add_argument("--partly", action="store_true", help="import also if weights are missing or unused")
    add_trust(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.interchange.import_run import import_directory
    from ..files.printing import printable

    print(printable(import_directory(Path(options.directory), Path(options.run), options.partly, trust_of(options))))
