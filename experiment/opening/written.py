"""What a trained run generates: whole items, or texts piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...inference.generate import stream_prompts, stream_texts
from ...inference.generating import Generating, before
from ...inference.items import generate_items, generate_unprompted
from ..folder.reading import RunError
from .given import given_split
from .opened import Opened


def generated_items(
    run: Opened, samples: Sequence[Mapping[str, Any]], how: Generating, target: str | None = None
) -> list[Any]:
    """The items that the run makes of the other inputs of each sample, in their order; of no sample one item, of
    nothing: those of the input `target`, by default the first that is generated and not given. A refined text begins as
    a draft: `how.prompt` with the printed name of the mask (`<|mask|>`) wherever something is to be filled in, or with
    masks behind it. Raises RunError for a sample that cannot be read."""
    run.check_heads()
    name, target = run.text_task({name for sample in samples for name in sample}, target)
    task = run.tasks[name]
    if task.needs.refines and how.prompt:
        how = replace(how, draft=draft_of_prompt(run, target, how))
    if not samples and len(run.choppers) == 1 and (task.needs.refines or not how.prompt):
        found = generate_unprompted(run.model, name, task, 1, how)
    else:
        split = given_split(run, samples or [{}])
        places = sorted(split.all(), key=lambda place: place.number)
        by_number = generate_items(run.model, run.tasks, name, split, places, how)
        if split.unread.bad:
            raise RunError(next(iter(split.unread.bad.values())))
        found = [by_number[place.number] for place in places]
    items = [task.restore(ids) for ids in found]
    return [before(item, how.stop) for item in items] if run.choppers[target].kind == "text" else items


def streamed(
    run: Opened, prompts: Sequence[str | None], inputs: Sequence[Mapping[str, Any]], options: dict[str, Any]
) -> Iterator[list[str]]:
    """The texts of prompts or of samples piece by piece; see `Run.stream`."""
    name, target = run.text_task()
    task, say = run.tasks[name], options.pop("say", print)
    if task.needs.refines or run.choppers[target].kind != "text":
        raise RunError(f"{run.folder} generates whole items of {target!r}, which cannot be streamed")
    if inputs:
        run.check_heads()
        split = given_split(run, inputs)
        places = sorted(split.all(), key=lambda place: place.number)
        how = Generating.of({"prompt": one_of(prompts), **options})
        return stream_texts(run.model, name, task, split, places, how)
    if task.needs.encoder:
        raise RunError(f"{run.folder} writes {target!r} from its other inputs: give them (--input NAME=VALUE)")
    return stream_prompts(run.model, name, task, prompts, Generating.of(options), say)


def one_of(prompts: Sequence[str | None]) -> str:
    """The prompt with which the texts of all samples begin. Raises RunError where several are given."""
    if len(prompts) > 1:
        raise RunError(f"{len(prompts)} prompts and inputs cannot be combined: give one, with which every text begins")
    return prompts[0] or ""


def draft_of_prompt(run: Opened, target: str, how: Generating) -> list[int]:
    """The ids of a text with masks in it; where there are none, `how.max_tokens` (by default what the context has room
    for) are put behind it. Raises RunError for what is no text."""
    if run.choppers[target].kind != "text":
        raise RunError(f"--prompt is for texts, and {target!r} is none; a part is given by --given FILE --fill PLACES")
    chopper = run.choppers[target].with_marks(["mask"])
    ids, mask = chopper.encoded(how.prompt), chopper.vocabulary.roles["mask"]
    if mask in ids:
        return ids
    room = run.model.context - len(ids) - len(chopper.vocabulary.before) - len(chopper.vocabulary.after)
    return [*ids, *[mask] * max(min(how.max_tokens or room, room), 0)]
