"""`chopmix predict RUN --input NAME=VALUE`: every task's answer to samples given by hand, one JSON object a line."""

from __future__ import annotations

import argparse

from .options.shared import add_checkpoint, add_inputs, add_search, given_samples, load, search_options

HELP = "answer files of any of a run's inputs, as JSON lines"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command, required=True)
    add_search(command)
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """The exit status: 1 where none of the samples could be read."""
    from ..experiment.run_folder import say_aside
    from ..files.printing import json_line

    loaded = load(options)
    samples, failed = given_samples(options.input, loaded), 0
    loaded = loaded.searching(**search_options(options))
    say_aside(loaded.name)
    for sample, answer in zip(samples, loaded.predict(samples)):
        print(json_line({**sample, **answer}), flush=True)
        failed += "error" in answer
    if failed:
        say_aside(f"{failed:,} of {len(samples):,} samples could not be answered")
    return 1 if failed == len(samples) else 0
