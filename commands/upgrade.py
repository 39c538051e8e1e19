"""`chopmix upgrade RUN`: rewrite a run of an earlier chopmix in the present format and names."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "rewrite a run of an earlier chopmix in today's names; nothing is lost"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")


def run(options: argparse.Namespace) -> None:
    from ..experiment.folder.upgrade import upgrade
    from ..files.printing import printable

    for line in upgrade(Path(options.run)) or [f"{options.run}: nothing to do"]:
        print(printable(line))
