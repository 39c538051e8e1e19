"""`chopmix predict RUN --input NAME=VALUE`: prints the predictions of all tasks for each sample as one JSON line."""

from __future__ import annotations

import argparse

from .options.shared import add_checkpoint, add_inputs, add_search, load, parse_samples, search_options

HELP = "print predictions for samples as JSON lines"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command, required=True)
    add_search(command)
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if the predictions of all samples failed, else 0."""
    from ..experiment.run_folder import say_aside
    from ..files.printing import json_line

    loaded = load(options)
    samples, failed = parse_samples(options.input, loaded), 0
    loaded = loaded.searching(**search_options(options))
    say_aside(loaded.name)
    for sample, answer in zip(samples, loaded.predict(samples)):
        print(json_line({**sample, **answer}), flush=True)
        failed += "error" in answer
    if failed:
        say_aside(f"{failed:,} of {len(samples):,} samples have no prediction because of errors")
    return 1 if failed == len(samples) else 0
