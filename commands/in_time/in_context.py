"""`chopmix in_context RUN`: the error after k examples of a model that learns functions in its context, beside ridge
regression and other rivals, and a probe of its layers; of one that follows rules, how often it is right. A CSV and a
picture of it, in the run's folder."""

from __future__ import annotations

import argparse

from ..options.shared import add_checkpoint, load, wide_console

HELP = "tell what a run learns from the examples in its context"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--functions", type=int, default=1000, metavar="N",
                         help="samples that are read; half of functions tune the rivals; default 1,000")  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="where the CSV and the picture go; default: RUN")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from rich.table import Table

    from ...experiment.folder.reading import RunError, say_aside
    from ...experiment.views.learned import PICTURE, TABLE, probe_lines, tell

    loaded = load(options)
    if loaded.config.data.dataset is None:
        raise RunError(
            f"{loaded.folder} was imported. Only a run that was trained on the data set `in_context` or `rules`, as by "
            "configs/in_context/linear.yaml, learns from examples in its context"
        )
    say_aside(loaded.name)
    folder = Path(options.out) if options.out else loaded.folder
    rows, probed = tell(loaded, folder, options.functions, say_aside)
    title, *columns = rows[0]
    for group in dict.fromkeys(row[title] for row in rows):
        named = str(group) if title == "where" else f"{title} of {group}"
        table = Table(*(name.replace("_", " ") for name in columns), title=named)
        for row in rows:
            if row[title] == group:
                table.add_row(*(f"{row[name]:.4g}" for name in columns))
        wide_console().print(table)
    for line in probe_lines(probed):
        print(line)
    print(folder / TABLE, folder / PICTURE, sep="\n")
