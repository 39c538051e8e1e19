"""`chopmix baselines RUN`: fits simple models (logistic or ridge regression, gradient boosting, a support vector
machine, rules for forecasts, n-grams) to the training samples of a run, scores them on the same samples, and prints a
table:

    model                  seconds  accuracy  the run is better by               95 %
    this run                            0.91
    majority class             0.0      0.25               +0.6600  +0.6100 to +0.7100
    logistic regression        1.2      0.88               +0.0300  +0.0100 to +0.0500
    The run is better than the best simple model (logistic regression) by 0.0300 (0.0100 to 0.0500).

RUN can be the folder of a cross-validation.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..files.errors import UsageError
from ..files.printing import wide_console
from .options.shared import add_checkpoint

HELP = "compare a run with simple models that are fitted in seconds"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run, or the folder of a cross-validation")
    command.add_argument("--split", choices=("val", "test"), default="val", help="default: val")
    command.add_argument("--task", action="append", metavar="NAME", help="compare only this task; repeatable")
    command.add_argument("--metric", metavar="NAME", help="such as balanced_accuracy; default: that of the task")
    command.add_argument("--limit", type=float, default=60.0, metavar="S", help="seconds for a model; default: 60")
    command.add_argument("--json", metavar="FILE", help="also write the table to this file")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.baselines import compare_folds, folds_in
    from ..experiment.figures import choice
    from ..experiment.run import load_run
    from ..experiment.run_names import folder_of_run
    from ..files.printing import printable, say_aside
    from ..files.writing import write_json
    from ..inference.baseline_table import Comparisons, compared

    if options.json and not os.path.isdir(Path(options.json).absolute().parent):
        raise UsageError(f"--json {options.json}: the folder {Path(options.json).parent} does not exist")
    if not options.limit > 0:
        raise UsageError(f"--limit must be more than 0 seconds, not {options.limit:g}")
    folds = folds_in(folder_of_run(options.run))
    runs = [
        load_run(folder, options.checkpoint, options.device, options.trust, options.remote, options.overrides,
                 options.adapters)
        for folder in folds or [options.run]
    ]  # fmt: skip
    how = {"names": options.task, "metric": options.metric, "limit": options.limit, "say": say_aside}
    if folds and options.split != "val":
        raise UsageError("a cross-validation has no other test split than its folds; remove --split")
    results = compare_folds(runs, **how) if folds else compared(runs[0], options.split, **how)
    for each in results:
        wide_console().print(each.table())
        print(*map(printable, [each.sentence, *each.remarks]), sep="\n")
    config = runs[0].config
    best = config.checkpoints.best if runs[0].which == "best" else None
    on_val = options.split == "val" and not (folds and config.data.split.inner)
    print(printable(choice(best, on_val, config.data.split.inner if folds else None)))
    if options.json:
        write_json(Path(options.json), Comparisons(comparisons=results).model_dump(mode="json"))
