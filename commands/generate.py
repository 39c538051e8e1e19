"""`chopmix generate RUN`: prints one text while it is generated, continues every prompt of a file, or generates items
from other inputs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..files.errors import UsageError
from .options.items import check_no_refining, constraint_of, draft_of_options, grammar_check, refining_of, write_items
from .options.shared import add_checkpoint, add_inputs, add_search, load, parse_samples, search_options

if TYPE_CHECKING:
    from ..experiment.run import Run

HELP = "generate texts, pictures, sounds or scores"
OPTIONS = (
    ("--guidance", float, None, "W", "guidance weight; 1: no guidance (default: the setting of the task)"),
    ("--grammar", str, None, "G", "the text must match it: a .lark grammar, a .json schema, or a regular expression"),
    ("--forbid", str, None, "ID,ID", "ids that are never generated"),
    ("--force", str, None, "POSITION:ID,...", "the ids at these positions, counted from 0"),
    ("--steps", int, None, "N", "for models that refine drafts: the number of refinement steps"),
    ("--drafts", int, None, "N", "number of drafts; the draft that the model itself scores best is kept"),
    ("--order", str, None, "confidence|random", "the order in which masks are filled in"),
    ("--item", str, None, "FILE", "for models that refine drafts: the file of an item to change in part"),
    ("--fill", str, None, "POSITIONS", "the positions to replace, counted from 0: 3,8:12"),
    ("--animate", str, None, "FILE.gif", "write the drafts as an animation"),
    ("--target", str, None, "NAME", "the input to generate (default: the first possible one without --input)"),
    ("--output", str, None, "FILE", "output file; its extension is the format. Several items: FILE-1, FILE-2, ...; "
     "several texts: one file with one text per line, or .jsonl"),
    ("--count", int, 1, "N", "number of items per sample or prompt"),
)  # fmt: skip
"""Options for generated items and their output: flag, type, default, metavar and help text."""
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""The options of random sampling. They cannot be combined with the options of beam search."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="the text to continue; default: a new document")
    source.add_argument(
        "--prompts",
        metavar="FILE",
        help="a file with one prompt per line; an empty line gives an empty text",
    )
    command.add_argument("--max-tokens", type=int, metavar="N", help="maximum number of tokens (texts: 200 by default)")
    command.add_argument("--temperature", type=float, metavar="T", help="0: always the most likely token (default: 1)")
    command.add_argument("--top-k", type=int, metavar="N", help="only the N most likely tokens")
    command.add_argument(
        "--top-p", type=float, metavar="P", help="only the most likely tokens with a total probability P"
    )
    command.add_argument(
        "--min-p", type=float, metavar="P", help="only tokens with at least P times the largest probability"
    )
    command.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="above 1: tokens of the text become less likely"
    )
    add_search(command)
    for flag, kind, default, metavar, text in OPTIONS:
        command.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    command.add_argument("--seed", type=int, metavar="N", help="seed; the same seed generates the same text")
    add_checkpoint(command)
    command.add_argument("--no-cache", action="store_true", help="recompute the complete text for every token (slow)")


def run(options: argparse.Namespace) -> None:
    from ..models.generation.sampling import Sampling

    sampling = sampling_of(options)
    if options.count < 1:
        raise UsageError(f"--count is {options.count}; it must be at least 1")
    if options.input and options.prompts:
        raise UsageError("--prompts cannot be combined with --input")
    loaded = load(options).searching(**search_options(options))
    samples = parse_samples(options.input, loaded) if options.input else []
    name, target = loaded.text_task({name for sample in samples for name in sample}, options.target)
    task, chopper = loaded.tasks[name], loaded.choppers[target]
    continues = task.needs.generates and chopper.kind == "text"
    settings = {"max_tokens": 200 if continues and options.max_tokens is None else options.max_tokens,
                "sampling": None if sampling is None else replace(task.sampling or Sampling(), **sampling),
                "stop": options.stop, "seed": options.seed, "search": task.search, "cached": not options.no_cache,
                "guidance": task.guidance if options.guidance is None else options.guidance}  # fmt: skip
    if task.needs.refines:
        settings |= refining_of(options, task) | draft_of_options(options, loaded, target)
    else:
        check_no_refining(options)
    settings["constraint"] = constraint_of(options, chopper.vocabulary)
    check = grammar_check(options, chopper.vocabulary)
    if continues and options.count == 1 and len(samples) < 2 and not (options.output or options.prompts):
        check(print_text(loaded, options.prompt, samples, {"target": target, **settings}))
    else:
        write_items(loaded, target, samples, options, settings, check)


def sampling_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """Returns the options of random sampling that the user has set, by name; they replace the settings of the task.
    Returns None if options of beam search are set. Raises UsageError if options of both kinds are set."""

    sampling = {name: getattr(options, name) for name in SAMPLED if getattr(options, name) is not None}
    if not (search := search_options(options)):
        return sampling
    if sampling:
        flags = [f"--{next(iter(group)).replace('_', '-')}" for group in (search, sampling)]
        raise UsageError(
            f"{flags[0]} (beam search) and {flags[1]} (random sampling) cannot be combined; use one of them"
        )
    return None


def print_text(run: Run, prompt: str | None, samples: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    """Prints a prompt, and its continuation while it is generated. Returns the continuation, without the prompt."""
    from ..files.printing import as_written

    prefix, text = prompt or "", ""
    for (piece,) in run.stream([prompt], samples, **settings):
        print(as_written(prefix + piece), end="", flush=True)
        prefix, text = "", text + piece
    print()
    return text
