"""`chopmix compare RUN...`: prints a table of several runs and draws their curves into one picture."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ..files.printing import wide_console
from .options.answers import check_output
from .options.shared import add_trust, trust_of

HELP = "compare runs: curves, means, intervals, paired differences"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run, or the folder of seeds, of a cross-validation or of a sweep"
    )
    command.add_argument(
        "--picture", metavar="FILE", help="the curves (default: the name of the first --output, else compare.png)"
    )
    command.add_argument("--output", metavar="FILE", action="append", default=[],
                         help="also write the table: .csv, .md or .tex; repeatable")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace the files if they exist")
    add_trust(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.compare import PICTURES, comparison, draw_curves, main_curves, on_terminal
    from ..experiment.figure_table import ENDINGS
    from ..experiment.groups import read_groups
    from ..experiment.run_names import folder_of_run
    from ..files.printing import printable

    for file in options.output:
        check_output(Path(file), options.overwrite, ENDINGS)
    if options.picture:
        check_output(Path(options.picture), options.overwrite, PICTURES, "--picture")
    picture = Path(
        options.picture or (Path(options.output[0]).with_suffix(".png") if options.output else "compare.png")
    )
    groups = read_groups([folder_of_run(folder) for folder in options.runs], trust_of(options))
    table = comparison(groups)
    on_terminal(table).print(wide_console())
    for file in options.output:
        table.write(Path(file))
        print(printable(f"table: {file}"))
    if options.picture is None and not main_curves(groups):
        print("no curves: the runs have no common metric that changes from step to step")
    elif options.picture is None and not options.overwrite and os.path.lexists(picture):
        print(printable(f"no curves: {picture} exists; --overwrite replaces it, --picture FILE writes another file"))
    else:
        draw_curves(groups, picture)
        print(printable(f"curves: {picture}"))
