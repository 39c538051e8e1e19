"""`chopmix report RUN`: writes the page of a run, or of several runs of one configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.errors import UsageError
from .options.shared import add_checkpoint, load, page_path, trust_of, with_output_hint

if TYPE_CHECKING:
    from ..experiment.groups import Group

HELP = "write the page of a run, of several seeds, of a cross-validation or of a sweep"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "run", metavar="RUN", help="the folder of a run, or of several seeds, of a cross-validation or of a sweep"
    )
    command.add_argument("--output", metavar="FILE", help="output file (default: RUN/index.html)")
    command.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.group_page import best_first, write_group_page
    from ..experiment.groups import read_groups, several_in
    from ..experiment.run_names import folder_of_run, output_folder
    from ..experiment.run_page import write_run_page
    from ..files.printing import printable

    folder = folder_of_run(options.run)
    page = page_path(options.output, output_folder(folder) / "index.html")
    if os.path.lexists(page) and not options.overwrite:
        raise UsageError(f"{page} exists; replace it with --overwrite, or choose another file with --output FILE")
    groups = read_groups([folder], trust_of(options)) if several_in(folder) else []
    if groups:
        options.run = str(folder_of_first(groups[0]))
        groups = best_first(groups, load(options))
        options.run = str(folder_of_first(groups[0]))
    loaded = load(options)
    with with_output_hint("--output FILE"):
        if groups:
            write_group_page(folder, groups, loaded, page)
        else:
            write_run_page(loaded, page)
    print(printable(str(page)))


def folder_of_first(group: Group) -> Path:
    """Returns the folder of the first run of a group."""
    return next(iter(group.members.values())).folders[0]
