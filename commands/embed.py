"""`chopmix embed RUN`: writes embeddings of samples, that is, the output of the first core after its last layer."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import DATA_HELP, add_checkpoint, add_inputs, load, parse_samples

HELP = "write embeddings of samples: one vector per sample or per token"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command)
    command.add_argument("--data", metavar="DATA", help=f"a data set: {DATA_HELP}")
    command.add_argument("--split", default="test", metavar="S", help="train, val or test (the default)")
    command.add_argument(
        "--pool", choices=("mean", "first", "tokens"), default="mean",
        help="the mean over a sample's tokens (the default), its first token, or every token",
    )  # fmt: skip
    command.add_argument("--output", metavar="FILE", help="a .npy, .csv or .parquet file (default: print JSON lines)")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if no sample can be read, else 0."""
    from ..experiment.embed import split_of, write_embeddings
    from ..experiment.run_folder import RunError, say_aside

    loaded = load(options)
    if bool(options.input) == bool(options.data):
        raise RunError("pass either samples (--input NAME=VALUE) or a data set (--data DATA)")
    if options.data:
        split = split_of(loaded, options.data, options.split)
    else:
        split = loaded.as_split(parse_samples(options.input, loaded), for_prediction=False)
    say_aside(loaded.name)
    output = Path(options.output) if options.output else None
    return int(write_embeddings(loaded, split, options.pool, output) == len(split))
