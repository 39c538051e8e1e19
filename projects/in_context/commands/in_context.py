"""`chopmix in_context RUN`: measures what a model learns from the examples in its context.

For functions, these are the error after k examples, compared with ridge regression and other baselines, and the scores
of a linear probe of the layers. For rules, it is the accuracy of the answers. All results have standard errors. The
command writes a CSV and a picture into the folder of the run, or into the folder of `--out`."""

from __future__ import annotations

import argparse

from ....commands.options.shared import add_checkpoint, load, with_output_hint
from ....files.errors import UsageError
from ....files.printing import wide_console

HELP = "measure what a run learns from the examples in its context"
AFTER = "evaluate"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--functions", type=int, default=1000, metavar="N",
                         help="number of samples (default: 1,000); half of them tune the baselines")  # fmt: skip
    command.add_argument("--out", metavar="DIR", help="folder for the CSV and the picture; default: RUN")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from pathlib import Path

    from rich.table import Table

    from ....files.printing import say_aside
    from ..curves import PICTURE, TABLE, measure_and_write, probe_lines
    from ..scoring import ERROR

    loaded = load(options)
    if loaded.config.data.dataset is None:
        raise UsageError(
            f"{loaded.folder} was imported. This command needs a run that was trained on the data set `in_context` or "
            "`rules`, for example with configs/in_context/linear.yaml"
        )
    say_aside(loaded.name)
    folder = Path(options.out) if options.out else loaded.folder
    with with_output_hint("--out DIR"):
        rows, probed = measure_and_write(loaded, folder, options.functions, say_aside)
    title = next(iter(rows[0]))
    columns = [name for name in rows[0] if name not in (title, "functions", "answers") and not name.endswith(ERROR)]
    for group in dict.fromkeys(row[title] for row in rows):
        group_rows = [row for row in rows if row[title] == group]
        first = group_rows[0]
        count = f"{first['functions']:,} functions" if title == "where" else f"{first['answers']:,} answers per row"
        caption = f"{group if title == 'where' else f'{title} of {group}'}, {count}, ± standard error"
        table = Table(*(name.replace("_", " ") for name in columns), title=caption)
        for row in group_rows:
            errors = {name: f" ± {row[name + ERROR]:.2g}" if name + ERROR in row else "" for name in columns}
            table.add_row(*(f"{row[name]:.4g}{errors[name]}" for name in columns))
        wide_console().print(table)
    for line in probe_lines(probed):
        print(line)
    print(folder / TABLE, folder / PICTURE, sep="\n")
