"""`chopmix in_context RUN`: measure what a model learns from the examples in its context.

For functions: the error after k examples, compared with ridge regression and other rivals, and a probe of the layers.
For rules: how often the answer is right. All figures have standard errors. A CSV and a picture are written into the
run's folder."""

from __future__ import annotations

import argparse

from ....commands.options.shared import add_checkpoint, load, or_elsewhere, wide_console

HELP = "tell what a run learns from the examples in its context"
AFTER = "evaluate"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--functions", type=int, default=1000, metavar="N",
                         help="samples that are read; half of functions tune the rivals; default 1,000")  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="where the CSV and the picture go; default: RUN")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from rich.table import Table

    from ....experiment.run_folder import RunError, say_aside
    from ..curves import PICTURE, TABLE, probe_lines, tell
    from ..scoring import ERROR

    loaded = load(options)
    if loaded.config.data.dataset is None:
        raise RunError(
            f"{loaded.folder} was imported. Only a run that was trained on the data set `in_context` or `rules`, as by "
            "configs/in_context/linear.yaml, learns from examples in its context"
        )
    say_aside(loaded.name)
    folder = Path(options.out) if options.out else loaded.folder
    with or_elsewhere("--out DIR"):
        rows, probed = tell(loaded, folder, options.functions, say_aside)
    title = next(iter(rows[0]))
    columns = [name for name in rows[0] if name not in (title, "functions", "answers") and not name.endswith(ERROR)]
    for group in dict.fromkeys(row[title] for row in rows):
        own = [row for row in rows if row[title] == group]
        count = f"{own[0]['functions']:,} functions" if title == "where" else f"{own[0]['answers']:,} answers each"
        named = f"{group if title == 'where' else f'{title} of {group}'}, {count}, ± standard error"
        table = Table(*(name.replace("_", " ") for name in columns), title=named)
        for row in own:
            errors = {name: f" ± {row[name + ERROR]:.2g}" if name + ERROR in row else "" for name in columns}
            table.add_row(*(f"{row[name]:.4g}{errors[name]}" for name in columns))
        wide_console().print(table)
    for line in probe_lines(probed):
        print(line)
    print(folder / TABLE, folder / PICTURE, sep="\n")
