"""`chopmix new KIND DATA`: inspects data and writes a configuration that trains on them."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.errors import UsageError

HELP = "write a YAML file for your images, sounds, tables or texts"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("kind", choices=("images", "sounds", "table", "text", "samples"), help="the kind of data")
    command.add_argument(
        "data", type=Path, nargs="+", metavar="DATA",
        help="images: a folder with one folder per class; sounds: such a folder, or a list (CSV, JSONL) of paths and "
        "labels; table: a CSV or parquet file with a column of times; text: a file or a folder; samples: a table with "
        "one row per sample, and folders of images or sounds that are named by its --key",
    )  # fmt: skip
    command.add_argument("--key", metavar="COLUMN", help="samples: the column with the names of the files")
    command.add_argument("--output", type=Path, metavar="FILE", help="the YAML file (default: NAME.yaml)")
    command.add_argument("--encoder", metavar="RUN", help="use a trained run as a frozen encoder of images or sounds")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status 0."""
    from ..experiment.new.write import write_start
    from ..files.printing import one_line, shell_word

    if options.encoder and options.kind not in ("images", "sounds"):
        raise UsageError(f"--encoder is for images and sounds, not for {options.kind}")
    file, start = write_start(options.kind, options.data, options.output, options.encoder, options.key)
    for line in start.found:
        print(one_line(line))
    command = f"chopmix train {shell_word(file)}"
    print(f"written: {one_line(str(file))}\n\n  {command} --dry-run    # checks everything and prints the costs")
    print(f"  {command}")
    return 0
