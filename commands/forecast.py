"""`chopmix forecast RUN`: forecasts the steps after the last row of a table."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files.errors import UsageError
from .options.answers import add_output, check_output, output_of
from .options.shared import add_checkpoint, load

HELP = "forecast the steps after the last row of a table: JSON lines, CSV or parquet, and a picture"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--data", metavar="FILE", help="another table (.csv or .parquet; default: that of the training)"
    )
    command.add_argument(
        "--horizon", type=int, metavar="N", help="the number of steps (default: all that the run predicts)"
    )
    command.add_argument(
        "--picture", nargs="?", const=True, metavar="FILE",
        help="draw the forecast (default: the name of --output, with .png)",
    )  # fmt: skip
    add_output(command)
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status 0."""
    from ..experiment.forecast import next_steps, write_picture
    from ..files.printing import json_line, say_aside
    from ..files.rows import row_file

    picture = options.picture
    output = output_of(options) if options.output or not isinstance(picture, str) else None
    if picture is True and output is None:
        raise UsageError("--picture needs --output FILE, or a name: --picture FILE")
    if picture is not None:
        picture = output.with_suffix(".png") if picture is True else Path(picture)
        check_output(picture, options.overwrite, (".png",), "--picture")
    loaded = load(options)
    say_aside(loaded.name)
    forecasts = next_steps(loaded, options.data, options.horizon)
    rows = [row for each in forecasts for row in each.rows(len(forecasts) > 1)]
    if output is None:
        for row in rows:
            print(json_line(row))
    else:
        with row_file(output, errors=False) as write:
            write(rows)
        say_aside(f"{output}: {len(rows):,} rows")
    if picture is not None:
        write_picture(picture, forecasts)
        say_aside(str(picture))
    return 0
