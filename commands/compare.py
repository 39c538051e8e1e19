"""`chopmix compare RUN...`: prints a table of several runs and draws their curves into one picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from .options.shared import wide_console

HELP = "compare runs: curves, means, standard deviations, paired differences"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run, or a folder of seeds (RUN/seed-0, ...)")
    command.add_argument("--picture", metavar="FILE", default="compare.png")


def run(options: argparse.Namespace) -> None:
    from ..experiment.compare import comparison_table, draw_curves, read_group
    from ..files.printing import printable

    groups = [read_group(Path(folder)) for folder in options.runs]
    wide_console().print(comparison_table(groups))
    draw_curves(groups, Path(options.picture))
    print(printable(f"curves: {options.picture}"))
