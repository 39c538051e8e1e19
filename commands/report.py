"""`chopmix report RUN`: writes the page of a run."""

from __future__ import annotations

import argparse

from .options.shared import add_checkpoint, load, page_path, with_output_hint

HELP = "write the page of a run: curves, report, samples, attention, configuration"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="the folder of a run, or of several seeds of a run")
    command.add_argument("--output", metavar="FILE", help="output file (default: RUN/index.html)")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> None:
    from ..experiment.compare import read_group
    from ..experiment.run_folder import folder_of_run, output_folder
    from ..experiment.run_page import write_run_page
    from ..files.printing import printable

    folder, group = folder_of_run(options.run), None
    if seeds := sorted(folder.glob("seed-*/config.yaml")):
        group, options.run = read_group(folder), str(seeds[0].parent)
    page = page_path(options.output, output_folder(folder) / "index.html")
    loaded = load(options)
    with with_output_hint("--output FILE"):
        write_run_page(loaded, page, group)
    print(printable(str(page)))
