"""Forecasts from the end of a table (`chopmix forecast`, and the older form `chopmix predict --horizon`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...files.errors import UsageError
from .answers import check_output, output_of
from .shared import load


def add_picture(command: argparse.ArgumentParser) -> None:
    """Adds --picture."""
    command.add_argument(
        "--picture", nargs="?", const=True, metavar="FILE",
        help="draw the forecast (default: the name of --output, with .png)",
    )  # fmt: skip


def forecast(options: argparse.Namespace) -> int:
    """Writes the forecast of a run. Returns the exit status 0."""
    from ...experiment.forecast import next_steps, write_picture
    from ...files.printing import json_line, say_aside
    from ...files.rows import row_file

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
