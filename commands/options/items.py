"""Items that `chopmix generate` prints or writes to files, and the options about them: constraints, refinement,
animations."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...experiment.run import Run
    from ...models.generation.constraints import Constraint
    from ...tasks.base import Task
    from ...tokenizers.encoding.base import Vocabulary

LINES = ".jsonl"
"""The ending of a file that texts are written to as JSON lines."""


def prompts_of(options: argparse.Namespace) -> list[str | None]:
    """The prompts, one for each line of the file --prompts; without it the one of --prompt. Raises RunError for a file
    in which all lines are empty."""
    from ...experiment.run_folder import RunError
    from ...files.reading import read_text

    if not options.prompts:
        return [options.prompt]
    found = [line.removesuffix("\r") for line in read_text(options.prompts).removesuffix("\n").split("\n")]
    if not any(found):
        raise RunError(f"{options.prompts} holds no prompt; it should have one a line")
    return found


def write_items(
    run: Run, target: str, samples: Sequence[Mapping[str, str]], options: argparse.Namespace, settings: dict[str, Any],
    check: Callable[[str], None],
) -> None:  # fmt: skip
    """Generate `--count` items for each sample, or each prompt, and write them to `--output`, or print texts. An empty
    line of `--prompts` gets an empty text. `check` gets each text that is generated. Raises RunError for an ending that
    the items cannot be written to, and for a file that exists."""
    from ...files.writing import write_bytes
    from ...tokenizers.media.files import animation_bytes

    known, text, frames = run.choppers[target].vocabulary, run.choppers[target].kind == "text", []
    every = [each for each in samples for _ in range(options.count)]
    prompts = [each for each in prompts_of(options) for _ in range(1 if samples else options.count)]
    files = files_of(options, run, target, len(every or prompts))
    if options.animate:
        settings["show"] = lambda items: frames.append(known.picture(items[0], known.roles["mask"]))
    asked = [each for each in prompts if each != ""] if options.prompts else prompts
    found = iter(run.generate(options.prompt if samples else asked, inputs=every, target=target, **settings))
    if text:
        texts = ["" if options.prompts and each == "" else next(found) for each in (every or prompts)]
        given = every or [{"prompt": each} if options.prompts else {} for each in prompts]
        continued = (options.prompt or "") * run.tasks[run.text_task((), target)[0]].needs.generates
        write_texts(texts, given, options, known, continued, files)
        for each in texts:
            check(each)
    else:
        for file, item in zip(files, found, strict=True):
            write_bytes(file, known.content(item, file.suffix.lower()))
            print(file)
    if options.animate:
        write_bytes(Path(options.animate), animation_bytes(same_height(frames)))
        print(options.animate)


def write_texts(
    texts: Sequence[str], given: Sequence[Mapping[str, str]], options: argparse.Namespace, vocabulary: Vocabulary,
    continued: str, files: Sequence[Path],
) -> None:  # fmt: skip
    """Write texts to a file, or print them if there is none. A file holds one text as it is, and several texts (or
    those of `--prompts`) one per line; a `.jsonl` file holds one JSON object per text, with what was `given` for it.
    Printed texts of `--prompts` are one per line; others are printed after the prompt that they continue."""
    from ...experiment.run_folder import say_aside
    from ...files.printing import as_written, json_line
    from ...files.writing import write_bytes

    lines = [json_line({**each, "text": text}) for each, text in zip(given, texts, strict=True)]
    if not files:
        for line, text in zip(lines, texts):
            print(line if options.prompts else as_written(continued + text), flush=True)
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


def files_of(options: argparse.Namespace, run: Run, target: str, count: int) -> list[Path]:
    """The files that `count` items are written to, of texts one for all; none where texts are printed. Raises RunError
    as `write_items`."""
    from ...experiment.run_folder import RunError

    text = run.choppers[target].kind == "text"
    endings = (*run.choppers[target].vocabulary.endings, *([LINES] if text else []))
    animation = [Path(options.animate)] if options.animate else []
    if animation and animation[0].suffix.lower() != ".gif":
        raise RunError(f"--animate {options.animate}: an animation is a .gif")
    if not options.output:
        new_files(animation)
        if not text:
            raise RunError(f"{options.run} generates {target!r}: say where to, --output FILE ({', '.join(endings)})")
        return []
    file = Path(options.output)
    if file.suffix.lower() not in endings:
        raise RunError(f"--output {file}: it can be written to {', '.join(endings)}, not {file.suffix!r}")
    one = text or count == 1
    files = [file] if one else [file.with_stem(f"{file.stem}-{n}") for n in range(1, count + 1)]
    new_files([*files, *animation])
    return files


def new_files(files: Sequence[Path]) -> None:
    """Raises RunError for a file that exists."""
    from ...experiment.run_folder import RunError

    for file in files:
        if os.path.exists(file):
            raise RunError(f"{file} exists; choose another name, or remove it")


def same_height(frames: list[Any]) -> list[Any]:
    """Pictures (c, h, w) of one width with white below the lower ones."""
    from torch.nn.functional import pad

    highest = max(frame.shape[1] for frame in frames)
    return [pad(frame, (0, 0, 0, highest - frame.shape[1]), value=255) for frame in frames]


def constraint_of(options: argparse.Namespace, vocabulary: Vocabulary) -> Constraint | None:
    """What may be generated, as --grammar, --forbid and --force say; None: anything. Raises RunError for ids outside
    the vocabulary, and a grammar for what is no text."""
    from ...experiment.run_folder import RunError
    from ...models.generation.constraints import Forbidden, Forced
    from ...tokenizers.encoding.grammar import Grammar

    found: Constraint | None = None
    try:
        if options.forbid is not None:
            found = Forbidden(tuple(vocabulary.known(map(whole, options.forbid.split(","))))) & found
        if options.force is not None:
            pairs = [each.partition(":")[::2] for each in options.force.split(",")]
            places, ids = [whole(place) for place, _ in pairs], vocabulary.known(whole(id) for _, id in pairs)
            check_places(places, vocabulary.length)
            found = Forced(dict(zip(places, ids))) & found
    except ValueError as error:
        flag = "--forbid" if found is None and options.forbid is not None else "--force"
        raise RunError(f"{flag}: {error}; write --forbid 3,7 and --force 0:3,1:7") from None
    if options.grammar is not None:
        if ".txt" not in vocabulary.endings:
            raise RunError("--grammar is for texts; this run generates none")
        found = Grammar(vocabulary, options.grammar) & found
    return found


def cut_short(options: argparse.Namespace, vocabulary: Vocabulary) -> Callable[[str], None]:
    """A function that says of a generated text when it was cut before it fits --grammar."""
    from ...experiment.run_folder import say_aside
    from ...tokenizers.encoding.grammar import Grammar

    grammar = None if options.grammar is None else Grammar(vocabulary, options.grammar)

    def check(text: str) -> None:
        if grammar is not None and not grammar.is_whole(text):
            say_aside("the text was cut before it fits the grammar; --max-tokens N gives it more room")

    return check


def whole(text: str) -> int:
    """A whole number. Raises ValueError for another text."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def check_places(places: Iterable[int], length: int | None) -> None:
    """Raises ValueError for a place that no item has; `length` is how many ids each has, None: they differ."""
    for place in places:
        if place < 0 or (length is not None and place >= length):
            last = f"0 to {length - 1}" if length is not None else "counted from 0"
            raise ValueError(f"an item has no place {place}: places are {last}")


def draft_of_given(options: argparse.Namespace, run: Run, target: str) -> dict[str, Any]:
    """The draft that --given and --fill say: the ids of an item, with masks at some places. Raises RunError where the
    item cannot be read, and for places that it does not have."""
    from ...experiment.run_folder import RunError

    if options.given is None and options.fill is None:
        return {}
    if options.given is None or options.fill is None:
        raise RunError("--given FILE and --fill PLACES belong together: an item, and what of it is filled in anew")
    chopper, task = run.choppers[target], run.tasks[run.text_task((), target)[0]]
    if chopper.kind == "text":
        raise RunError("--given and --fill are for files; in a text masks say what is filled in: --prompt 'a <|mask|>'")
    try:
        ids = chopper.vocabulary.encode(chopper.decode(options.given))
    except (ValueError, OSError) as error:
        raise RunError(f"--given {options.given}: {error}") from error
    try:
        ends = [[whole(end) for end in part.split(":")] for part in options.fill.split(",")]
        check_places([each for first, *last in ends for each in (first, *(end - 1 for end in last))], len(ids))
        places = [place for first, *last in ends for place in range(first, last[0] if last else first + 1)]
        if not places:
            raise ValueError("it names no place")
    except ValueError as error:
        raise RunError(
            f"--fill {options.fill}: {error}. Places are counted from 0, in a picture row by row: write 3,8:12 for the "
            f"places 3, 8, 9, 10, 11, or {len(ids) // 2}:{len(ids)} for the second half (of a picture the lower one)"
        ) from None
    return {"draft": [task.mask if place in {*places} else id for place, id in enumerate(ids)]}


def refining_of(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    """How a draft is refined, as --steps, --drafts and --order say. Raises RunError where the run refines none."""
    from dataclasses import replace

    from ...experiment.run_folder import RunError

    asked = {"steps": options.steps, "drafts": options.drafts, "order": options.order}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not task.needs.refines:
        for flag in [*(each for each in ("animate", "given", "fill") if getattr(options, each) is not None), *asked]:
            raise RunError(f"--{flag}: this run refines no drafts")
        return {}
    if refused := [flag for flag in ("grammar", "forbid", "force") if getattr(options, flag) is not None]:
        raise RunError(f"--{refused[0]}: this run refines drafts, which no rule about what follows what can hold for")
    if options.order not in (None, "confidence", "random"):
        raise RunError(f"--order is {options.order!r}; possible: confidence, random")
    if "order" in asked:
        asked["by"] = asked.pop("order")
    return {"refining": replace(task.refining, **asked)}
