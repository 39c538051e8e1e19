"""`chopmix forecast RUN`: forecasts the steps after the last row of a table."""

from __future__ import annotations

import argparse

from .options.answers import add_output
from .options.forecasts import add_picture, forecast
from .options.shared import add_checkpoint

HELP = "forecast the steps after the last row of a table: JSON lines, CSV or parquet, and a picture"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument(
        "--data", metavar="DATA", help="another table (.csv or .parquet; default: that of the training)"
    )
    command.add_argument(
        "--horizon", type=int, metavar="N", help="the number of steps (default: all that the run predicts)"
    )
    add_picture(command)
    add_output(command)
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status 0."""
    return forecast(options)
