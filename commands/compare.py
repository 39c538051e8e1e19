"""`chopmix compare RUN...`: prints a table of several runs and draws their curves into one picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.answers import check_output
from .options.shared import wide_console

HELP = "compare runs: curves, means, standard deviations, paired differences"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run, a folder of seeds (RUN/seed-0, ...), or a sweep"
    )
    command.add_argument("--picture", metavar="FILE", help="the curves (default: compare.png)")
    command.add_argument("--output", metavar="FILE", action="append", default=[],
                         help="also write the table: .csv, .md or .tex; repeatable")  # fmt: skip
    command.add_argument("--overwrite", action="store_true", help="replace the files of --output if they exist")


def run(options: argparse.Namespace) -> None:
    from ..experiment.compare import TABLES, comparison_table, draw_curves, main_curves, read_groups, write_comparison
    from ..experiment.run_folder import folder_of_run
    from ..files.printing import printable

    for file in options.output:
        check_output(Path(file), options.overwrite, TABLES)
    groups = read_groups([folder_of_run(folder) for folder in options.runs])
    wide_console().print(comparison_table(groups))
    for file in options.output:
        write_comparison(groups, Path(file))
        print(printable(f"table: {file}"))
    if options.picture is None and not main_curves(groups):
        print("no curves: the runs have no common metric that changes from step to step")
        return
    draw_curves(groups, Path(options.picture or "compare.png"))
    print(printable(f"curves: {options.picture or 'compare.png'}"))
