"""`chopmix inspect CONFIG`: writes an HTML page with the tokens, attention graphs and targets of one sample; for a run,
also with its learned attention and predictions. For a text corpus it also prints the tokens and one batch."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.errors import UsageError
from .options.shared import add_config, add_inputs, config_of, page_path, parse_samples, trust_of, with_output_hint

if TYPE_CHECKING:
    from ..experiment.settings.config import Config
    from ..experiment.shown_sample import Choice, Shown

HELP = "show the tokens and the attention of a sample"
OF_RUN = ("input", "sample", "other", "task", "layers", "animate")
"""The options that need a trained run."""


def add_options(command: argparse.ArgumentParser) -> None:
    add_config(command)
    command.add_argument("--sample", metavar="KEY", help="the key or the number of the sample, from 1 (default: 1)")
    command.add_argument("--split", metavar="S", help="train, val (default) or test")
    add_inputs(command)
    command.add_argument("--other", metavar="KEY", help="the sample whose inputs replace those of the shown one")
    command.add_argument("--task", metavar="NAME", help="the task whose targets are shown, if a task hides inputs")
    command.add_argument("--layers", metavar="L", help="the layers whose attention the page contains, such as 1,4-6")
    command.add_argument("--animate", metavar="FILE", help="also write an animated picture of the sample, an .svg file")
    command.add_argument("--checkpoint", choices=("best", "last"), default="best", help="default: best")
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument(
        "--output", metavar="FILE", help="output file (default: RUN/inspect.html; NAME.html for NAME.yaml)"
    )


def run(options: argparse.Namespace) -> None:
    from ..experiment.animating import write_animation
    from ..experiment.changes import read_changes
    from ..experiment.inspection import write_page
    from ..experiment.run_names import output_folder
    from ..experiment.shown_sample import Choice
    from ..experiment.terminal_tokens import inspect_text
    from ..files.printing import printable

    if options.animate and not options.animate.endswith(".svg"):
        raise UsageError(f"--animate {options.animate}: the name of the file must end in .svg")
    config = config_of(options)
    choice = Choice(split=options.split or "val", sample=options.sample, other=options.other, task=options.task,
                    layers=layers_of(options.layers))  # fmt: skip
    if not config.on_samples and config.data.dataset is not None:
        inspect_text(config)
    for change in read_changes(config.out) if config.in_run else ():
        print(*map(printable, change.lines()), sep="\n")
    default = output_folder(config.out) / "inspect.html" if config.in_run else Path(f"{config.path.stem}.html")
    page = page_path(options.output, default)
    shown, choice = shown_of(options, config, choice)
    with with_output_hint("--output FILE"):
        print(printable(write_page(shown, page, choice)))
    if options.animate:
        print(printable(write_animation(shown, Path(options.animate), choice)))


def shown_of(options: argparse.Namespace, config: Config, choice: Choice) -> tuple[Shown, Choice]:
    """Returns what the page is about, the trained run, or, for a YAML file or with overrides, the configuration; and
    the choice with the sample of `--input`. Raises UsageError if an option needs a trained run."""
    from dataclasses import replace

    from ..experiment.run import open_run
    from ..experiment.shown_sample import trained, untrained
    from ..files.printing import say_aside
    from ..training.checkpoints import steps

    if config.in_run and not options.overrides and steps(config.out):
        run = open_run(config.out, options.checkpoint, options.device, trust_of(options))
        if options.input:
            samples = parse_samples(options.input, run)
            if len(samples) != 1:
                raise UsageError(f"--input names {len(samples)} samples; the page shows one")
            choice = replace(choice, inputs=samples[0])
        return trained(run, choice), choice
    if unusable := next((f"--{name}" for name in (*OF_RUN, "split") if getattr(options, name)), ""):
        raise UsageError(f"{unusable} needs the folder of a trained run, without KEY=VALUE")
    if config.in_run:
        say_aside(f"{config.out}: the page shows the configuration without its trained weights")
    return untrained(config), choice


def layers_of(text: str | None) -> list[int]:
    """Returns the layers that a text such as `1,4-6` names; none for None. Raises UsageError for another text."""

    layers: list[int] = []
    for part in text.split(",") if text else ():
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UsageError(f"--layers {text!r}: write numbers and ranges, such as 1,4-6")
        layers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return layers
