"""`chopmix merge OUTPUT SHARD...`: merges the files of all shards of a prediction or of embeddings."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.answers import check_output

HELP = "merge the files of `predict` or `embed` with --shard"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("output", metavar="OUTPUT", help="the new file: .csv, .jsonl, .parquet or .npy")
    command.add_argument("shards", nargs="+", metavar="SHARD", help="the files of all shards, in any order")
    command.add_argument("--overwrite", action="store_true", help="replace OUTPUT if it exists")


def run(options: argparse.Namespace) -> None:
    from ..experiment.merge import ENDINGS, merge
    from ..files.printing import printable

    check_output(Path(options.output), options.overwrite, ENDINGS)
    samples = merge(Path(options.output), list(map(Path, options.shards)))
    print(printable(f"{options.output}: {samples:,} samples"))
