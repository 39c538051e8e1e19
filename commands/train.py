"""`chopmix train CONFIG`: trains a run, resumes it, or prints the metrics of a finished run."""

from __future__ import annotations

import argparse
import os
from functools import partial

from ..files.errors import UsageError
from .options.shared import add_trust, trust_of

HELP = "train from a YAML file, or resume a stopped run"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", metavar="CONFIG", help="a YAML file (see configs/) or the folder of a run")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="KEY=VALUE", help="e.g. training.steps=500 model.depth=6"
    )
    add_trust(command)
    command.add_argument(
        "--change", action="append", default=[], metavar="KEY=VALUE",
        help="change a setting of a run that is already trained for some steps; repeatable",
    )  # fmt: skip
    command.add_argument(
        "--accept-data", action="store_true",
        help="continue a run although an older version of chopmix computed the fingerprints of its data",
    )  # fmt: skip
    command.add_argument("--dry-run", action="store_true", help="check everything, print the costs, run one step")
    command.add_argument("--full", action="store_true", help="with --dry-run: also print the YAML with all defaults")
    command.add_argument("--seeds", metavar="0,1,2", help="train once per seed; print mean and standard deviation")
    command.add_argument("--sweep", action="append", metavar="KEY=A,B",
                         help="train once per value and print a table; repeatable: all combinations")  # fmt: skip
    command.add_argument("--folds", type=int, metavar="N",
                         help="cross-validation: train once per fold of train and val; print a table")  # fmt: skip
    command.add_argument("--jobs", type=int, default=1, metavar="N",
                         help="with --seeds, --sweep, --folds: train N runs at the same time")  # fmt: skip
    command.add_argument("--inner", type=float, metavar="SHARE",
                         help="with --folds: choose the checkpoint on this share of the other folds")  # fmt: skip
    command.add_argument("--group", metavar="COLUMN", help="with --folds: keep samples with the same value together")
    command.add_argument("--stratify", metavar="COLUMN", help="with --folds: the same proportions of classes in all")


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 130 if Ctrl-C stopped the training, 143 if SIGTERM stopped it, else 0."""
    from ..data.processes import Processes, leave
    from ..experiment.changes import check_keys, is_training_key
    from ..experiment.jobs import end_with_parent
    from ..experiment.next_steps import next_commands
    from ..experiment.settings.config import load_config
    from ..experiment.sweep import number_of_runs, train_several
    from ..experiment.train import train
    from ..files.printing import say_aside

    end_with_parent()
    trust = trust_of(options)
    changes = [f"training.{change}" if is_training_key(change) else change for change in options.change]
    config = load_config(options.config, [*options.overrides, *changes], trust)
    changed = [change.partition("=")[0] for change in changes]
    check_keys(changed, config.out)
    is_first = os.environ.get("RANK", "0") == "0"
    several = options.seeds or options.sweep or options.folds or options.group or options.stratify or options.inner
    if options.dry_run:
        from ..experiment.dry_run import dry_run

        dry_run(config, options.full)
        if several and is_first:
            print(number_of_runs(options, config, trust))
        return 0
    if options.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {options.jobs}")
    if options.jobs > 1 and not several:
        raise UsageError("--jobs trains several runs at the same time; name them with --seeds, --sweep or --folds")
    if several:
        status = train_several(options, partial(train, accept_data=options.accept_data), trust)
    else:
        status = train(config, changed, options.accept_data)[1]
        if not status and is_first:
            say_aside("\n".join(["next:", *(f"  {command}" for command in next_commands(config))]))
    Processes.stop()
    return leave(status)
