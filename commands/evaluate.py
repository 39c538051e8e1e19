"""`chopmix evaluate RUN`: print the metrics of a whole split, each with the number of samples that it is measured on,
and append them to the run's `evaluations.jsonl`.

    500 samples of parallel_text (val)
    val/second/loss 0.465812
    val/second/chain 0.471385 (64 samples)
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .options.shared import DATA_HELP, add_checkpoint, add_search, load, search_options, wide_console

HELP = "measure a run on a whole split"
GENERATING = (
    ("--guidance", float, "W", "generate with this weight of what the inputs change; default: as the task says"),
    ("--temperature", float, "T", "generate at this temperature; default: as the task says"),
    ("--steps", int, "N", "refine drafts in so many steps; default: as the task says"),
    ("--drafts", int, "N", "keep the best of so many drafts; default: as the task says"),
)
"""How items are generated: flag, type, metavar and help."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--data", metavar="DATA", help=f"another data set: {DATA_HELP}")
    command.add_argument("--split", default="val", metavar="S", help="train, val (the default) or test")
    add_checkpoint(command)
    add_search(command)
    command.add_argument(
        "--inputs", metavar="NAME,NAME", help="read these inputs alone, beside those that are predicted"
    )
    for flag, kind, metavar, text in GENERATING:
        command.add_argument(flag, type=kind, metavar=metavar, help=text)
    command.add_argument("--subsets", action="store_true", help="also measure how many bits each input contributes")
    command.add_argument("--output", metavar="DIR", help="where pictures, pages and evaluations.jsonl go; default: RUN")
    command.add_argument("--json", metavar="FILE", help="also write the figures there")


def run(options: argparse.Namespace) -> None:
    from ..experiment.own_data import whole_data
    from ..experiment.run import evaluated
    from ..experiment.run_folder import RunError, say_aside
    from ..files.printing import printable
    from ..files.writing import make_folder, write_json
    from ..inference.evaluators.attribution import tables, truth_of

    asked = {name: getattr(options, name) for name in ("guidance", "temperature", "steps", "drafts")}
    loaded = load(options).searching(**search_options(options)).generating(**asked)
    dataset = whole_data(options.data, options.split, *loaded.reads()) if options.data else None
    if options.json and not os.path.isdir(Path(options.json).absolute().parent):
        raise RunError(f"--json {options.json}: there is no folder {Path(options.json).parent}")
    output = Path(options.output) if options.output else None
    if output:
        make_folder(output)
    say_aside(loaded.name)
    inputs = options.inputs.split(",") if options.inputs is not None else None
    found = evaluated(loaded, options.split, dataset, inputs=inputs, output=output)
    record = {name: value for name, value in {"inputs": inputs, **asked}.items() if value not in (None, [])}
    record |= {"data": options.data or loaded.config.tree["data"]["dataset"], "split": options.split}
    record |= {"samples": found.readable, "measured_on": found.samples, **found.metrics}
    print(printable(f"{found.readable:,} {found.unit} of {(dataset or loaded.dataset()).title(options.split)}"))
    for name, value in found.metrics.items():
        number = found.samples.get(name, found.readable)
        some = f" ({number:,} {found.unit})" if number != found.readable else ""
        print(printable(f"{name} {value if isinstance(value, int) else f'{value:.6g}'}{some}"))
    loaded.record(record, output)
    if options.subsets:
        for name, worth in loaded.attribution(options.split, dataset).items():
            data = dataset or loaded.dataset()
            truth = truth_of(loaded.wiring, data, options.split, loaded.tasks[name], worth.inputs)
            wide_console().print(*tables(name, worth, truth), sep="\n")
            prefix = options.split if len(loaded.tasks) == 1 else f"{options.split}/{name}"
            record |= worth.figures(prefix)
            record["measured_on"] |= worth.numbers(prefix)
    if options.json:
        write_json(Path(options.json), {"step": loaded.step, "checkpoint": loaded.which, **record})
