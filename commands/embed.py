"""`chopmix embed RUN`: a model's vectors of samples, of the last layer of its first core."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import DATA_HELP, add_checkpoint, add_inputs, given_samples, load

HELP = "what a model makes of samples, as vectors: one a sample or one a token"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command)
    command.add_argument("--data", metavar="DATA", help=f"a data set: {DATA_HELP}")
    command.add_argument("--split", default="test", metavar="S", help="of a dataset: train, val or test (the default)")
    command.add_argument(
        "--pool", choices=("mean", "first", "tokens"), default="mean",
        help="the mean over a sample's tokens (the default), its first token, or every token",
    )  # fmt: skip
    command.add_argument(
        "--output", metavar="FILE", help="a .npy, .csv or .parquet file (default: JSON lines, printed)"
    )
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """The exit status: 1 where none of the samples could be read."""
    from ..experiment.embed import split_of, write_embeddings
    from ..experiment.run_folder import RunError, say_aside

    loaded = load(options)
    if bool(options.input) == bool(options.data):
        raise RunError("name either samples (--input NAME=VALUE) or a data set (--data), and one of the two")
    if options.data:
        split = split_of(loaded, options.data, options.split)
    else:
        split = loaded.given(given_samples(options.input, loaded), asked=False)
    say_aside(loaded.name)
    output = Path(options.output) if options.output else None
    return int(write_embeddings(loaded, split, options.pool, output) == len(split))
