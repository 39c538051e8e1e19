"""`chopmix inspect CONFIG`: writes an HTML page with the tokens, attention graphs and targets of one sample. For a text
corpus it also prints the tokens and one batch."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import add_config, config_of, with_output_hint

HELP = "show the tokens, attention graphs and targets of a sample"


def add_options(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument(
        "--output", metavar="FILE", help="output file (default: RUN/inspect.html; NAME.html for NAME.yaml)"
    )


def run(options: argparse.Namespace) -> None:
    from ..experiment.changes import read_changes
    from ..experiment.inspection import inspect_text, write_page
    from ..files.printing import printable

    config = config_of(options)
    if not config.on_samples:
        inspect_text(config)
    for change in read_changes(config.out) if config.in_run else ():
        print(*map(printable, change.lines()), sep="\n")
    page = config.out / "inspect.html" if config.in_run else Path(f"{config.path.stem}.html")
    with with_output_hint("--output FILE"):
        print(printable(str(write_page(config, Path(options.output or page)))))
