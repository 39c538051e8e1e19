"""`chopmix inspect CONFIG`: what the model reads: one HTML page, and of a text corpus its tokens on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_config, given_config, or_elsewhere

HELP = "see what the model sees: tokens, and one batch unpacked"


def add_options(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument(
        "--output", metavar="FILE", help="the page (default: RUN/inspect.html, for NAME.yaml NAME.html in this folder)"
    )


def run(options: argparse.Namespace) -> None:
    from ..experiment.inspection import inspect_text, write_page
    from ..files.printing import printable

    config = given_config(options)
    if not config.on_samples:
        inspect_text(config)
    page = config.out / "inspect.html" if config.in_run else Path(f"{config.path.stem}.html")
    with or_elsewhere("--output FILE"):
        print(printable(str(write_page(config, Path(options.output or page)))))
