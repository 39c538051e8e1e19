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

    from ...data.datasets.rules import Rules
    from ...experiment.folder.reading import RunError, say_aside
    from ...experiment.views.learned import followed, learned, written, written_rules

    if options.functions < 4:
        raise RunError(f"--functions must be at least 4, not {options.functions}")
    loaded = load(options)
    say_aside(loaded.name)
    folder = Path(options.out) if options.out else loaded.folder
    if isinstance(loaded.dataset(), Rules):
        rows = followed(loaded, options.functions, say_aside)
        table = Table("rules of", "examples", "exact match")
        for row in rows:
            table.add_row(row["rules"], str(row["examples"]), f"{row['exact_match']:.3f}")
        wide_console().print(table)
        print(*written_rules(folder, rows), sep="\n")
        return
    found, probed = learned(loaded, options.functions, say_aside)
    for where, lines in found.items():
        table = Table("examples", *lines, title=where)
        for k in range(len(lines["model"])):
            table.add_row(str(k), *(f"{curve[k]:.4g}" for curve in lines.values()))
        wide_console().print(table)
    for where, scores in probed.items():
        print(f"ridge's weights read off each layer at {where}, R2: {', '.join(f'{score:.3f}' for score in scores)}")
    print(*written(folder, found, probed), sep="\n")
