"""What a trained run generates: complete items, or texts piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...inference.generate import stream_prompts, stream_texts
from ...inference.generating import Generating, before, joined
from ...inference.items import generate_items, generate_unprompted
from ...tasks.base import Task
from ..folder.reading import RunError
from .given import Sample, check_samples, given_split, say_missing
from .opened import Opened

Prompts = Sequence[str | None]
"""How texts begin; None or an empty one: a new text."""
Say = Callable[[str], None]


def generated(
    run: Opened, prompts: Prompts, samples: Sequence[Sample], target: str | None, how: Generating, say: Say
) -> list[Any]:
    """One item for each sample, or, where no sample has a value, for each prompt; see `Run.generate`."""
    name, task = asked_task(run, samples, target, say)
    if not any(samples):
        prompts, samples = [each for each in prompts for _ in samples or [{}]], []
    if not samples and not prompts:
        return []
    if not samples and continues(run, task):
        return joined(stream_prompts(run.model, name, task, prompts, how, say), len(prompts))
    return generated_items(run, name, prompts, samples, how)


def streamed(
    run: Opened, prompts: Prompts, samples: Sequence[Sample], target: str | None, how: Generating, say: Say
) -> Iterator[list[str]]:
    """The texts of samples or of prompts piece by piece; see `Run.stream`."""
    name, task = asked_task(run, samples, target, say)
    if not continues(run, task):
        raise RunError(f"{run.folder} generates complete items of {task.target!r}, which cannot be streamed")
    if any(samples):
        split = given_split(run, samples)
        places = sorted(split.all(), key=lambda place: place.number)
        return stream_texts(run.model, name, task, split, places, replace(how, prompt=one_of(prompts)))
    return stream_prompts(run.model, name, task, prompts, how, say)


def asked_task(run: Opened, samples: Sequence[Sample], target: str | None, say: Say) -> tuple[str, Task]:
    """The task that generates the input `target`, by default the first that is generated and that no sample gives, and
    its name. Calls `say` with the inputs that samples lack. Raises RunError where no task generates it, and for inputs
    that it does not read or that an encoder needs."""
    run.check_heads()
    name, _ = run.text_task({each for sample in samples for each in sample}, target)
    task = run.tasks[name]
    check_samples(run, samples, [name])
    if task.needs.encoder and not any(samples):
        raise RunError(f"{run.folder} writes {task.target!r} from its other inputs: give them (--input NAME=VALUE)")
    say_missing(run, samples or [{}], [name], say)
    return name, task


def continues(run: Opened, task: Task) -> bool:
    """Whether a task continues texts, rather than making complete items."""
    return task.needs.generates and run.choppers[task.target].kind == "text"


def generated_items(run: Opened, name: str, prompts: Prompts, samples: Sequence[Sample], how: Generating) -> list[Any]:
    """The items that a task makes of each sample, in their order, or, without samples, of each prompt. A refined text
    begins as a draft: the prompt with the printed name of the mask (`<|mask|>`) wherever something is to be filled in,
    or with masks after it. Raises RunError for a sample that cannot be read, and for the prompt of what is no text."""
    task = run.tasks[name]
    text, count = run.choppers[task.target].kind == "text", len(samples or prompts)
    if any(prompts) and not text:
        part = "; --given FILE --fill PLACES keeps a part of an item" if task.needs.refines else ""
        raise RunError(f"--prompt is for texts, and {task.target!r} is none{part}")
    prompt = one_of(prompts) if samples else None
    if any(prompts) and task.needs.refines:
        drafts = [draft_of_prompt(run, task, prompt or "", how.max_tokens) for prompt in prompts]
        how = replace(how, draft=lambda number: drafts[number % len(drafts)])
    elif prompt:
        how = replace(how, prompt=prompt)
    if task.needs.refines and not run.config.on_samples:
        found = generate_unprompted(run.model, name, task, count, how)
    else:
        split = given_split(run, samples or [{}] * count)
        places = sorted(split.all(), key=lambda place: place.number)
        by_number = generate_items(run.model, run.tasks, name, split, places, how)
        if split.unread.bad:
            raise RunError(next(iter(split.unread.bad.values())))
        found = [by_number[place.number] for place in places]
    items = [task.restore(ids) for ids in found]
    return [before(item, how.stop) for item in items] if text else items


def one_of(prompts: Prompts) -> str:
    """The prompt with which the texts of all samples begin. Raises RunError where several are given."""
    if len(prompts) > 1:
        raise RunError(f"{len(prompts)} prompts and inputs cannot be combined: give one, with which every text begins")
    return (prompts[0] if prompts else None) or ""


def draft_of_prompt(run: Opened, task: Task, prompt: str, most: int | None) -> list[int]:
    """The ids of a text with masks in it; where there are none, masks are put after it: `most`, or as many as a text of
    the task has, or as the context has room for."""
    chopper = run.choppers[task.target].with_marks(["mask"])
    known, ids = chopper.vocabulary, chopper.encoded(prompt)
    if task.mask in ids:
        return ids
    frame = len(known.before) + len(known.after) if run.config.on_samples else 0
    room = run.model.context - len(ids) - frame
    wanted = most or (room if task.refining.tokens is None else task.refining.tokens - len(ids))
    return [*ids, *[task.mask] * max(min(wanted, room), 0)]
