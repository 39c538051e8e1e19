"""The output of `chopmix generate` (printed or written to files), and its options for constraints, drafts and
animations."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files.errors import UsageError

if TYPE_CHECKING:
    from ...experiment.run import Run
    from ...models.generation.constraints import Constraint
    from ...tasks.base import Task
    from ...tokenizers.encoding.base import Vocabulary

LINES = ".jsonl"
"""The extension of files to which texts are written as JSON lines."""


def prompts_of(options: argparse.Namespace) -> list[str | None]:
    """Returns one prompt per line of the file `--prompts`, or else a list with only the prompt of `--prompt` (None
    without this option). Raises UsageError if all lines of the file are empty."""
    from ...files.reading import read_text

    if not options.prompts:
        return [options.prompt]
    prompts = [line.removesuffix("\r") for line in read_text(options.prompts).removesuffix("\n").split("\n")]
    if not any(prompts):
        raise UsageError(f"{options.prompts} contains no prompt; write one prompt per line")
    return prompts


def write_items(
    run: Run, target: str, samples: Sequence[Mapping[str, str]], options: argparse.Namespace, settings: dict[str, Any],
    check: Callable[[str], None],
) -> None:  # fmt: skip
    """Generates `--count` items for each sample or prompt and writes them to `--output`. Without `--output`, texts are
    printed. For an empty line of `--prompts`, nothing is generated, and an empty text is written. After a text is
    written, `check` is called with it, and can print a warning. Raises UsageError if the items cannot be written to
    files with this extension, if the file exists, or if items other than texts have no `--output`."""
    from ...files.writing import write_bytes
    from ...tokenizers.media.files import animation_bytes

    chopper, task, frames = run.choppers[target], run.tasks[run.text_task((), target)[0]], []
    vocabulary, is_text = chopper.vocabulary, chopper.kind == "text"
    inputs = [sample for sample in samples for _ in range(options.count)]
    prompts = [prompt for prompt in prompts_of(options) for _ in range(1 if samples else options.count)]
    files = output_files(options, run, target, len(inputs or prompts))
    if options.animate:
        settings["show"] = lambda states: frames.append(task.picture(states[0]))
    nonempty = [prompt for prompt in prompts if prompt != ""] if options.prompts else prompts
    items = iter(run.generate(options.prompt if samples else nonempty, inputs=inputs, target=target, **settings))
    if is_text:
        texts = ["" if options.prompts and source == "" else next(items) for source in (inputs or prompts)]
        sources = inputs or [{"prompt": prompt} if options.prompts else {} for prompt in prompts]
        prefix = (options.prompt or "") * task.needs.generates
        write_texts(texts, sources, options, vocabulary, prefix, files)
        for text in texts:
            check(text)
    else:
        for file, item in zip(files, items, strict=True):
            write_bytes(file, (vocabulary or chopper).content(item, file.suffix.lower()))
            print(file)
    if options.animate:
        write_bytes(Path(options.animate), animation_bytes(same_height(frames)))
        print(options.animate)


def write_texts(
    texts: Sequence[str], sources: Sequence[Mapping[str, str]], options: argparse.Namespace, vocabulary: Vocabulary,
    prefix: str, files: Sequence[Path],
) -> None:  # fmt: skip
    """Writes texts to the only file in `files`, or prints them if `files` is empty. `sources` contains the inputs or
    the prompt of each text. A `.jsonl` file gets one JSON object per text, with its source. In any other file a single
    text is unchanged; several texts, and texts of `--prompts`, are written one per line. Texts of `--prompts` are
    printed as JSON lines, other texts after `prefix`."""
    from ...files.printing import as_written, json_line, say_aside
    from ...files.writing import write_bytes

    lines = [json_line({**source, "text": text}) for source, text in zip(sources, texts, strict=True)]
    if not files:
        for line, text in zip(lines, texts):
            print(line if options.prompts else as_written(prefix + text), flush=True)
        return
    (file,) = files
    if file.suffix.lower() == LINES:
        content = "".join(f"{line}\n" for line in lines).encode()
    elif len(texts) == 1 and not options.prompts:
        content = vocabulary.content(texts[0], file.suffix.lower())
    else:
        content = "".join(re.sub(r"[\r\n]+", " ", text) + "\n" for text in texts).encode(errors="backslashreplace")
        if broken := sum("\n" in text or "\r" in text for text in texts):
            say_aside(f"{file}: line breaks in {broken} of {len(texts)} texts are written as spaces; a {LINES} file "
                      "keeps them")  # fmt: skip
    write_bytes(file, content)
    print(file)


def output_files(options: argparse.Namespace, run: Run, target: str, count: int) -> list[Path]:
    """Returns the files to which `count` items are written: one file for all texts, or one file per item that is not a
    text. Returns an empty list if texts are printed. Raises UsageError as `write_items` does."""

    is_text = run.choppers[target].kind == "text"
    chopper = run.choppers[target]
    endings = (*(chopper.vocabulary or chopper).endings, *([LINES] if is_text else []))
    animation = [Path(options.animate)] if options.animate else []
    if animation and animation[0].suffix.lower() != ".gif":
        raise UsageError(f"--animate {options.animate}: an animation must be a .gif file")
    if not options.output:
        check_new(animation)
        if not is_text:
            raise UsageError(f"{options.run} generates {target!r}; add --output FILE (possible: {', '.join(endings)})")
        return []
    file = Path(options.output)
    if file.suffix.lower() not in endings:
        raise UsageError(f"--output {file}: {file.suffix!r} is not supported; possible: {', '.join(endings)}")
    single = is_text or count == 1
    files = [file] if single else [file.with_stem(f"{file.stem}-{n}") for n in range(1, count + 1)]
    check_new([*files, *animation])
    return files


def check_new(files: Sequence[Path]) -> None:
    """Raises UsageError if one of the files exists."""

    for file in files:
        if os.path.exists(file):
            raise UsageError(f"{file} exists; choose another name or remove it")


def same_height(frames: list[Any]) -> list[Any]:
    """Returns pictures (c, h, w) of equal width, padded to the largest height with white rows at the bottom."""
    from torch.nn.functional import pad

    highest = max(frame.shape[1] for frame in frames)
    return [pad(frame, (0, 0, 0, highest - frame.shape[1]), value=255) for frame in frames]


def constraint_of(options: argparse.Namespace, vocabulary: Vocabulary) -> Constraint | None:
    """Returns the constraint of `--grammar`, `--forbid` and `--force`; None if none of these options is set. Raises
    UsageError if an id or a position is not an integer or is out of range, or if `--grammar` is used for items that are
    not texts."""
    from ...models.generation.constraints import Forbidden, Forced
    from ...tokenizers.encoding.grammar import Grammar

    constraint: Constraint | None = None
    try:
        if options.forbid is not None:
            constraint = Forbidden(tuple(vocabulary.known(map(integer, options.forbid.split(","))))) & constraint
        if options.force is not None:
            pairs = [pair.partition(":")[::2] for pair in options.force.split(",")]
            positions, ids = [integer(number) for number, _ in pairs], vocabulary.known(integer(id) for _, id in pairs)
            check_positions(positions, vocabulary.length)
            constraint = Forced(dict(zip(positions, ids))) & constraint
    except ValueError as error:
        flag = "--forbid" if constraint is None and options.forbid is not None else "--force"
        raise UsageError(f"{flag}: {error}; write --forbid 3,7 and --force 0:3,1:7") from None
    if options.grammar is not None:
        if ".txt" not in vocabulary.endings:
            raise UsageError("--grammar is for texts; this run does not generate texts")
        constraint = Grammar(vocabulary, options.grammar) & constraint
    return constraint


def grammar_check(options: argparse.Namespace, vocabulary: Vocabulary) -> Callable[[str], None]:
    """Returns a function that prints a warning if a text does not match `--grammar` completely. The function does
    nothing without `--grammar`."""
    from ...files.printing import say_aside
    from ...tokenizers.encoding.grammar import Grammar

    grammar = None if options.grammar is None else Grammar(vocabulary, options.grammar)

    def check(text: str) -> None:
        if grammar is not None and not grammar.is_whole(text):
            say_aside("the text ends before it matches the grammar; use a larger --max-tokens N")

    return check


def integer(text: str) -> int:
    """Returns the integer in a text. Raises ValueError if the text is not an integer."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None


def check_positions(positions: Iterable[int], length: int | None) -> None:
    """Raises ValueError if a position is outside the item. `length` is the number of ids of every item; None: it
    varies."""
    for position in positions:
        if position < 0 or (length is not None and position >= length):
            possible = f"are 0 to {length - 1}" if length is not None else "are counted from 0"
            raise ValueError(f"position {position} is outside the item; positions {possible}")


def draft_of_options(options: argparse.Namespace, run: Run, target: str) -> dict[str, Any]:
    """Returns `{"draft": ids}`: the ids of the item in the file `--item`, with masks at the positions `--fill`; for an
    item without ids `{"draft": item, "filled": positions}`. Returns an empty dictionary if neither option is set.
    Raises UsageError if only one of the options is set, if items are texts, if the item cannot be read, or if `--fill`
    is not a list of positions inside the item."""

    if options.item is None and options.fill is None:
        return {}
    if options.item is None or options.fill is None:
        raise UsageError("--item FILE and --fill POSITIONS must be used together")
    chopper, task = run.choppers[target], run.tasks[run.text_task((), target)[0]]
    if chopper.kind == "text":
        raise UsageError("--item and --fill are not for texts; write masks into the prompt: --prompt 'a <|mask|>'")
    try:
        item = chopper.decode(options.item)
        ids = chopper.vocabulary.encode(item) if chopper.vocabulary else [0] * chopper.count(item)
    except (ValueError, OSError) as error:
        raise UsageError(f"--item {options.item}: {error}") from error
    try:
        ranges = [[integer(end) for end in part.split(":")] for part in options.fill.split(",")]
        check_positions([limit for first, *last in ranges for limit in (first, *(end - 1 for end in last))], len(ids))
        positions = [n for first, *last in ranges for n in range(first, last[0] if last else first + 1)]
        if not positions:
            raise ValueError("the range is empty")
    except ValueError as error:
        raise UsageError(
            f"--fill {options.fill}: {error}. Positions are counted from 0, in a picture row by row. Write 3,8:12 for "
            f"the positions 3, 8, 9, 10, 11, or {len(ids) // 2}:{len(ids)} for the second (in a picture: lower) half"
        ) from None
    if not chopper.vocabulary:
        return {"draft": item, "filled": positions}
    return {"draft": [task.mask if position in {*positions} else id for position, id in enumerate(ids)]}


def check_no_refining(options: argparse.Namespace) -> None:
    """Raises UsageError if an option is set that only tasks with a procedure of several steps have."""
    for flag in ("animate", "item", "fill", "steps", "drafts", "order"):
        if getattr(options, flag) is not None:
            raise UsageError(f"--{flag}: this run does not refine drafts")


def refining_of(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    """Returns `{"refining": settings}` with the settings of `--steps`, `--drafts` and `--order`. Raises UsageError for
    an option that the task does not have."""
    from dataclasses import replace

    settings = {"steps": options.steps, "drafts": options.drafts, "order": options.order}
    settings = {name: value for name, value in settings.items() if value is not None}
    if refused := [flag for flag in ("grammar", "forbid", "force") if getattr(options, flag) is not None]:
        raise UsageError(f"--{refused[0]}: this run refines drafts; constraints work only for left-to-right generation")
    if options.order not in (None, "confidence", "random"):
        raise UsageError(f"--order is {options.order!r}; possible: confidence, random")
    if options.order is not None and task.choppers[task.target].vocabulary is None:
        raise UsageError(f"--order is for drafts of ids; {task.target!r} is generated as a whole")
    if "order" in settings:
        settings["by"] = settings.pop("order")
    return {"refining": replace(task.refining, **settings)}
