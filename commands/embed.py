"""`chopmix embed RUN`: writes embeddings of samples, that is, the output of the first core after its last layer."""

from __future__ import annotations

import argparse

from ..files.errors import UsageError
from .options.answers import add_answers, output_of
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
    add_answers(command, "a .npy, .csv, .jsonl or .parquet file (default: print JSON lines)")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if no sample can be read, 3 if some cannot be read and `--strict` is set, else 0."""
    from ..experiment.answers import Count, Shard
    from ..experiment.embed import ENDINGS, embedded_split, write_embeddings
    from ..experiment.merge import record_of, write_record
    from ..files.printing import say_aside

    output, shard = output_of(options, ENDINGS), Shard.of(options.shard)
    if bool(options.input) == bool(options.data):
        raise UsageError("pass either samples (--input NAME=VALUE) or a data set (--data DATA)")
    if options.shard and (options.input or (options.pool == "tokens" and output and output.suffix.lower() == ".npy")):
        raise UsageError("--shard needs --data, and for --pool tokens a .csv, .jsonl or .parquet file")
    loaded = load(options)
    if options.data:
        split = embedded_split(loaded, options.data, options.split, shard)
    else:
        split = loaded.as_split(parse_samples(options.input, loaded), for_prediction=False)
    say_aside(loaded.name)
    count = Count(len(split), write_embeddings(loaded, split, options.pool, output))
    if options.shard and output:
        data = f"{options.data} ({options.split})"
        write_record(output, record_of(loaded, "embed", data, {"pool": options.pool}, shard, count.samples))
    return count.status(options.strict)
