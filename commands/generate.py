"""`chopmix generate RUN`: stream one text, continue each prompt of a file, or generate from other inputs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .options.items import constraint_of, cut_short, draft_of_given, refining_of, write_items
from .options.shared import add_checkpoint, add_inputs, add_search, given_samples, load, search_options

if TYPE_CHECKING:
    from ..experiment.run import Run

HELP = "continue a text, or start one; write a picture, a sound, a score"
OPTIONS = (
    ("--guidance", float, None, "W", "how much the inputs count: 1 as learned, more: enlarged (as the task says)"),
    ("--grammar", str, None, "G", "a .lark grammar, a .json schema, or a regular expression that the text must match"),
    ("--forbid", str, None, "ID,ID", "ids that are never generated"),
    ("--force", str, None, "PLACE:ID,...", "the ids at these places, counted from 0"),
    ("--steps", int, None, "N", "of a model that refines drafts: the steps in which one is filled in"),
    ("--drafts", int, None, "N", "the best of so many drafts: that from which the model itself reads best"),
    ("--order", str, None, "confidence|random", "which masks are filled in first"),
    ("--given", str, None, "FILE", "of a model that refines drafts: an item, of which a part is filled in anew"),
    ("--fill", str, None, "PLACES", "the places of its ids that are filled in, counted from 0: 3,8:12"),
    ("--animate", str, None, "FILE.gif", "write the drafts as an animation"),
    ("--target", str, None, "NAME", "the input to generate, where several can be (default: the first not given)"),
    ("--output", str, None, "FILE", "write to a file, as its ending says; several to FILE-1, FILE-2, ..., but texts to "
     "one file, a line each, or to .jsonl"),
    ("--count", int, 1, "N", "so many of each"),
)  # fmt: skip
"""What items are generated and where they go: flag, type, default, metavar and help."""
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""The options of random sampling, at odds with those of beam search."""


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="what to continue; none: a new document")
    source.add_argument(
        "--prompts",
        metavar="FILE",
        help="a file with one prompt a line, continued together; an empty line gets an empty text",
    )
    command.add_argument("--max-tokens", type=int, metavar="N", help="at most so many (of texts default: 200)")
    command.add_argument("--temperature", type=float, metavar="T", help="0: always the likeliest token (default: 1)")
    command.add_argument("--top-k", type=int, metavar="N")
    command.add_argument("--top-p", type=float, metavar="P")
    command.add_argument("--min-p", type=float, metavar="P")
    command.add_argument("--repetition-penalty", type=float, metavar="R")
    add_search(command)
    for flag, kind, default, metavar, text in OPTIONS:
        command.add_argument(flag, type=kind, default=default, metavar=metavar, help=text)
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    command.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    add_checkpoint(command)
    command.add_argument("--no-cache", action="store_true", help="read the whole text again for every token (slow)")


def run(options: argparse.Namespace) -> None:
    from ..experiment.run_folder import RunError
    from ..models.generation.sampling import Sampling

    asked = sampling_of(options)
    if options.count < 1:
        raise RunError(f"--count is {options.count}; it must be at least 1")
    if options.input and options.prompts:
        raise RunError("--prompts is for texts alone, not beside --input")
    loaded = load(options).searching(**search_options(options))
    samples = given_samples(options.input, loaded) if options.input else []
    name, target = loaded.text_task({name for sample in samples for name in sample}, options.target)
    task, chopper = loaded.tasks[name], loaded.choppers[target]
    continues = task.needs.generates and chopper.kind == "text"
    settings = {"max_tokens": 200 if continues and options.max_tokens is None else options.max_tokens,
                "sampling": None if asked is None else replace(task.sampling or Sampling(), **asked),
                "stop": options.stop, "seed": options.seed, "search": task.search, "cached": not options.no_cache,
                "guidance": task.guidance if options.guidance is None else options.guidance,
                "constraint": constraint_of(options, chopper.vocabulary)}  # fmt: skip
    settings |= refining_of(options, task) | draft_of_given(options, loaded, target)
    check = cut_short(options, chopper.vocabulary)
    if continues and options.count == 1 and len(samples) < 2 and not (options.output or options.prompts):
        check(written(loaded, options.prompt, samples, {"target": target, **settings}))
    else:
        write_items(loaded, target, samples, options, settings, check)


def sampling_of(options: argparse.Namespace) -> dict[str, Any] | None:
    """The settings of random sampling that are asked for, in the place of the task's; None where beam search is. Raises
    RunError where both are."""
    from ..experiment.run_folder import RunError

    asked = {name: getattr(options, name) for name in SAMPLED if getattr(options, name) is not None}
    if not (searched := search_options(options)):
        return asked
    if asked:
        flags = [f"--{next(iter(each)).replace('_', '-')}" for each in (searched, asked)]
        raise RunError(
            f"{flags[0]} searches for the likeliest text, {flags[1]} draws one at random: give one of the two"
        )
    return None


def written(run: Run, prompt: str | None, samples: Sequence[Mapping[str, str]], settings: Mapping[str, Any]) -> str:
    """The text that continues a prompt; the two are printed while it is generated."""
    from ..files.printing import as_written

    begun, found = prompt or "", ""
    for (piece,) in run.stream([prompt], samples, **settings):
        print(as_written(begun + piece), end="", flush=True)
        begun, found = "", found + piece
    print()
    return found
