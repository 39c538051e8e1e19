"""Items that `chopmix generate` writes to files, and the options about them: constraints, refinement, animations."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...experiment.run import Run
    from ...models.generation.constraints import Constraint
    from ...tasks.base import Task
    from ...tokenizers.encoding.vocabulary import Vocabulary


def write_items(run: Run, samples: list[dict[str, str]], options: argparse.Namespace, settings: dict[str, Any]) -> None:
    """Generate `--count` items for each sample; write each to a file and print its name, or, where no `--output` is
    given, print the texts. Raises RunError for an ending that the items cannot be written to, and for a file that
    exists."""
    from ...experiment.folder.reading import RunError
    from ...tokenizers.files.printing import as_written
    from ...tokenizers.files.writing import write_bytes
    from ...tokenizers.media.files import animation_bytes

    _, target = run.text_task({name for sample in samples for name in sample}, options.target)
    known, frames = run.choppers[target].vocabulary, []
    if options.count < 1:
        raise RunError(f"--count is {options.count}; it must be at least 1")
    each = [sample for sample in samples or [{}] for _ in range(options.count)]
    files = files_of(options, run, target, len(each))
    if options.animate:
        settings["show"] = lambda items: frames.append(known.picture(items[0], known.roles["mask"]))
    given = each if samples or len(each) > 1 else ()
    found = run.generate(options.prompt, inputs=given, target=target, **settings)
    for number, item in enumerate(found if isinstance(found, list) else [found]):
        if files:
            write_bytes(files[number], known.content(item, files[number].suffix.lower()))
        print(files[number] if files else as_written(item))
    if options.animate:
        write_bytes(Path(options.animate), animation_bytes(same_height(frames)))
        print(options.animate)


def files_of(options: argparse.Namespace, run: Run, target: str, count: int) -> list[Path]:
    """The files that `count` items are written to; none where texts are printed. Raises RunError as `write_items`."""
    from ...experiment.folder.reading import RunError

    endings = run.choppers[target].vocabulary.endings
    animation = [Path(options.animate)] if options.animate else []
    if animation and animation[0].suffix.lower() != ".gif":
        raise RunError(f"--animate {options.animate}: an animation is a .gif")
    if not options.output:
        new_files(animation)
        if run.choppers[target].kind != "text":
            raise RunError(f"{options.run} generates {target!r}: say where to, --output FILE ({', '.join(endings)})")
        return []
    file = Path(options.output)
    if file.suffix.lower() not in endings:
        raise RunError(f"--output {file}: it can be written to {', '.join(endings)}, not {file.suffix!r}")
    files = [file] if count == 1 else [file.with_stem(f"{file.stem}-{n}") for n in range(1, count + 1)]
    new_files([*files, *animation])
    return files


def new_files(files: Sequence[Path]) -> None:
    """Raises RunError for a file that exists."""
    from ...experiment.folder.reading import RunError

    for file in files:
        if file.exists():
            raise RunError(f"{file} exists; choose another name, or remove it")


def same_height(frames: list[Any]) -> list[Any]:
    """Pictures (c, h, w) of one width with white below the lower ones."""
    from torch.nn.functional import pad

    highest = max(frame.shape[1] for frame in frames)
    return [pad(frame, (0, 0, 0, highest - frame.shape[1]), value=255) for frame in frames]


def constraint_of(options: argparse.Namespace, vocabulary: Vocabulary) -> Constraint | None:
    """What may be generated, as --grammar, --forbid and --force say; None: anything. Raises RunError for ids outside
    the vocabulary, and a grammar for what is no text."""
    from ...experiment.folder.reading import RunError
    from ...models.generation.constraints import Forbidden, Forced
    from ...tokenizers.encoding.grammar import Grammar

    found: Constraint | None = None
    try:
        if options.forbid is not None:
            found = Forbidden(tuple(vocabulary.known(options.forbid.split(",")))) & found
        if options.force is not None:
            pairs = [each.split(":") for each in options.force.split(",")]
            ids, places = vocabulary.known(id for _, id in pairs), [int(place) for place, _ in pairs]
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
    from ...experiment.folder.reading import say_aside
    from ...tokenizers.encoding.grammar import Grammar

    grammar = None if options.grammar is None else Grammar(vocabulary, options.grammar)

    def check(text: str) -> None:
        if grammar is not None and not grammar.is_whole(text):
            say_aside("the text was cut before it fits the grammar; --max-tokens N gives it more room")

    return check


def check_places(places: Iterable[int], length: int | None) -> None:
    """Raises ValueError for a place that no item has; `length` is how many ids each has, None: they differ."""
    for place in places:
        if place < 0 or (length is not None and place >= length):
            last = f"0 to {length - 1}" if length is not None else "counted from 0"
            raise ValueError(f"an item has no place {place}: places are {last}")


def draft_of_given(options: argparse.Namespace, run: Run, target: str) -> dict[str, Any]:
    """The draft that --given and --fill say: the ids of an item, with masks at some places. Raises RunError where the
    item cannot be read, and for places that it does not have."""
    from ...experiment.folder.reading import RunError

    if options.given is None and options.fill is None:
        return {}
    if options.given is None or options.fill is None:
        raise RunError("--given FILE and --fill PLACES belong together: an item, and what of it is filled in anew")
    chopper, task = run.choppers[target], run.tasks[run.text_task((), target)[0]]
    try:
        ids = chopper.vocabulary.encode(chopper.decode(options.given))
    except (ValueError, OSError) as error:
        raise RunError(f"--given {options.given}: {error}") from error
    try:
        ends = [[int(end) for end in part.split(":")] for part in options.fill.split(",")]
        check_places([each for first, *last in ends for each in (first, *(end - 1 for end in last))], len(ids))
        places = [place for first, *last in ends for place in range(first, last[0] if last else first + 1)]
        if not places:
            raise ValueError("it names no place")
    except ValueError as error:
        raise RunError(f"--fill {options.fill}: {error}; write 3,8:12 for the places 3, 8, 9, 10, 11") from None
    return {"draft": [task.mask if place in {*places} else id for place, id in enumerate(ids)]}


def refining_of(options: argparse.Namespace, task: Task) -> dict[str, Any]:
    """How a draft is refined, as --steps, --drafts and --order say. Raises RunError where the run refines none."""
    from dataclasses import replace

    from ...experiment.folder.reading import RunError

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
