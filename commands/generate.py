"""`chopmix generate RUN`: stream one text to the terminal, continue a file of prompts, or write from other inputs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from .options import add_checkpoint, add_inputs, given_samples, load

if TYPE_CHECKING:
    from ..experiment.run import Run

HELP = "continue a text, or start one"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    add_inputs(command)
    source = command.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="what to continue; none: a new document")
    source.add_argument("--prompts", metavar="FILE", help="a file with one prompt a line, continued together")
    command.add_argument("--max-tokens", type=int, default=200, metavar="N")
    command.add_argument("--temperature", type=float, default=1.0, metavar="T", help="0: always the likeliest token")
    command.add_argument("--top-k", type=int, metavar="N")
    command.add_argument("--top-p", type=float, metavar="P")
    command.add_argument("--min-p", type=float, metavar="P")
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")
    command.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    add_checkpoint(command)
    command.add_argument("--no-cache", action="store_true", help="read the whole text again for every token (slow)")


def run(options: argparse.Namespace) -> None:
    from ..experiment.run import RunError, say_aside
    from ..models.generation.sampling import Sampling

    sampling = Sampling(
        temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
    )  # fmt: skip
    if options.max_tokens < 1:
        raise RunError(f"--max-tokens is {options.max_tokens}; it must be at least 1")
    settings = {"max_tokens": options.max_tokens, "sampling": sampling, "stop": options.stop, "seed": options.seed}
    loaded = load(options)
    if options.input:
        write_from_inputs(loaded, options, settings)
        return
    settings |= {"cached": not options.no_cache, "say": say_aside}
    if options.prompts:
        continue_prompts(loaded, options.prompts, settings)
    else:
        stream_text(loaded, options.prompt, settings)


def write_from_inputs(run: Run, options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Print what the run writes from samples of its other inputs, a line each. Raises RunError for one that cannot be
    read."""
    from ..experiment.run import RunError
    from ..tokenizers.files.printing import as_written

    for flag, asked in {"--prompts": options.prompts, "--no-cache": options.no_cache}.items():
        if asked:
            raise RunError(f"{flag} is for texts alone, not beside --input")
    begin = options.prompt or ""
    samples, (task, _) = given_samples(options.input, run), run.text_task()
    for answer in run.predict(samples, prompt=begin, **settings):
        if "error" in answer:
            raise RunError(answer["error"])
        print(as_written(begin + answer[task]["text"]))


def continue_prompts(run: Run, file: str, settings: dict[str, Any]) -> None:
    """Print each prompt of a file with its continuation, as JSON lines. Raises RunError for a file without prompts."""
    from ..experiment.run import RunError
    from ..tokenizers.files.printing import json_line
    from ..tokenizers.files.reading import read_text

    prompts = [line for line in read_text(file).splitlines() if line]
    if not prompts:
        raise RunError(f"{file} holds no prompt; it should have one a line")
    for prompt, text in zip(prompts, run.generate(prompts, **settings)):
        print(json_line({"prompt": prompt, "text": text}), flush=True)


def stream_text(run: Run, prompt: str | None, settings: dict[str, Any]) -> None:
    """Print a prompt and its continuation, piece by piece."""
    from ..tokenizers.files.printing import as_written

    begun = False
    for (piece,) in run.stream([prompt], **settings):
        print(as_written(piece if begun else (prompt or "") + piece), end="", flush=True)
        begun = True
    print()
