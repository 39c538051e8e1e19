"""`chopmix in_context RUN`: the error after k examples of a model that learns functions in its context, beside ridge
regression and other rivals; a CSV, a picture, and a probe of its layers, in the run's folder."""

from __future__ import annotations

import argparse

from ..options.shared import add_checkpoint, load, wide_console

HELP = "compare what a run learns in its context with regression"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--functions", type=int, default=1000, metavar="N",
                         help="how many are read, half of them to tune the rivals; default 1,000")  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="where the CSV and the picture go; default: RUN")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from rich.table import Table

    from ...experiment.folder.reading import RunError, say_aside
    from ...experiment.views.learned import learned, written

    if options.functions < 4:
        raise RunError(f"--functions must be at least 4, not {options.functions}")
    loaded = load(options)
    say_aside(loaded.name)
    found, probed = learned(loaded, options.functions, say_aside)
    for where, lines in found.items():
        table = Table("examples", *lines, title=where)
        for k in range(len(lines["model"])):
            table.add_row(str(k), *(f"{curve[k]:.4g}" for curve in lines.values()))
        wide_console().print(table)
    if probed:
        print("ridge's weights read off each layer, R2: " + ", ".join(f"{score:.3f}" for score in probed))
    for file in written(Path(options.out) if options.out else loaded.folder, found, probed):
        print(file)
