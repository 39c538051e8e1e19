"""`chopmix inspect CONFIG`: what the model reads: one HTML page, and of a text corpus its tokens on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_config, given_config

HELP = "see what the model sees: tokens, and one batch unpacked"


def add_options(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument("--html", metavar="FILE", help="where the page goes (default: beside the run's folder)")


def run(options: argparse.Namespace) -> None:
    from ..experiment.views.inspection import inspect_text, write_page
    from ..tokenizers.files.printing import printable

    config = given_config(options)
    if not config.on_samples:
        inspect_text(config)
    print(printable(str(write_page(config, Path(options.html or f"{config.out}.html")))))
