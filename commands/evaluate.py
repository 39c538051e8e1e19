"""`chopmix evaluate RUN`: computes metrics on all samples of a split, prints them and appends them to
`evaluations.jsonl` in the folder of the run. If a metric is computed on a part of the split, the number of samples is
printed:

    500 samples of parallel_text (val)
    val/second/loss 0.465812
    val/second/chain 0.471385 (64 samples)
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .options.shared import DATA_HELP, add_checkpoint, add_search, load, search_options, wide_console

HELP = "compute the metrics of a run on a complete split"
GENERATING = (
    ("--guidance", float, "W", "guidance weight of the inputs; default: the setting of the task"),
    ("--temperature", float, "T", "sampling temperature; default: the setting of the task"),
    ("--steps", int, "N", "number of refinement steps; default: the setting of the task"),
    ("--drafts", int, "N", "number of drafts to choose from; default: the setting of the task"),
)
"""Options for the generation of items: flag, type, metavar and help text."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("--data", metavar="DATA", help=f"another data set: {DATA_HELP}")
    command.add_argument("--split", default="val", metavar="S", help="train, val (the default) or test")
    add_checkpoint(command)
    add_search(command)
    command.add_argument("--inputs", metavar="NAME,NAME", help="use only these inputs and those that are predicted")
    for flag, kind, metavar, text in GENERATING:
        command.add_argument(flag, type=kind, metavar=metavar, help=text)
    command.add_argument("--subsets", action="store_true", help="also measure how many bits each input contributes")
    command.add_argument("--output", metavar="DIR", help="folder for pictures, pages, evaluations.jsonl; default: RUN")
    command.add_argument("--json", metavar="FILE", help="also write the metrics to this file")


def run(options: argparse.Namespace) -> None:
    from ..experiment.own_data import dataset_for
    from ..experiment.run import evaluated
    from ..experiment.run_folder import RunError, say_aside
    from ..files.printing import printable
    from ..files.writing import make_folder, write_json
    from ..inference.evaluators.attribution import tables, truth_of

    generation = {name: getattr(options, name) for name in ("guidance", "temperature", "steps", "drafts")}
    loaded = load(options).searching(**search_options(options)).generating(**generation)
    dataset = dataset_for(loaded, options.data, options.split) if options.data else None
    if options.json and not os.path.isdir(Path(options.json).absolute().parent):
        raise RunError(f"--json {options.json}: the folder {Path(options.json).parent} does not exist")
    output = Path(options.output) if options.output else None
    if output:
        make_folder(output)
    say_aside(loaded.name)
    inputs = options.inputs.split(",") if options.inputs is not None else None
    evaluation = evaluated(loaded, options.split, dataset, inputs=inputs, output=output)
    record = {name: value for name, value in {"inputs": inputs, **generation}.items() if value not in (None, [])}
    record |= {"data": options.data or loaded.config.tree["data"]["dataset"], "split": options.split}
    record |= {"samples": evaluation.readable, "measured_on": evaluation.samples, **evaluation.metrics}
    title = (dataset or loaded.dataset()).title(options.split)
    print(printable(f"{evaluation.readable:,} {evaluation.unit} of {title}"))
    for name, value in evaluation.metrics.items():
        number = evaluation.samples.get(name, evaluation.readable)
        count = f" ({number:,} {evaluation.unit})" if number != evaluation.readable else ""
        print(printable(f"{name} {value if isinstance(value, int) else f'{value:.6g}'}{count}"))
    loaded.record(record, output)
    if options.subsets:
        for name, attribution in loaded.attribution(options.split, dataset).items():
            data = dataset or loaded.dataset()
            truth = truth_of(loaded.wiring, data, options.split, loaded.tasks[name], attribution.inputs)
            wide_console().print(*tables(name, attribution, truth), sep="\n")
            prefix = options.split if len(loaded.tasks) == 1 else f"{options.split}/{name}"
            record |= attribution.figures(prefix)
            record["measured_on"] |= attribution.numbers(prefix)
    if options.json:
        write_json(Path(options.json), {"step": loaded.step, "checkpoint": loaded.which, **record})
