"""Generation for the prompts and the samples of a request (`Run.generate`, `Run.stream`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..data.samples import Samples
from ..files.errors import RunError
from ..tasks.base import Task
from .evaluator import Say, TrainedRun
from .generate import Generating, Generation, before, joined, stream_prompts, stream_texts
from .items import generate_items, generate_unprompted
from .predict import inputs_of_task
from .requests import as_samples, check_samples, present, report_missing, seeded_by_item

Prompts = Sequence[str | None]
"""The beginnings of texts. None or an empty text: a new text."""


def generated(
    run: TrainedRun, prompts: Prompts, samples: Samples, target: str | None, how: Generating, say: Say
) -> list[Any]:  # fmt: skip
    """Returns one item per sample, or, if no sample has a value, one item per prompt; see `Run.generate`."""
    name, task = generating_task(run, samples, target, say)
    if not samples.column_names:
        prompts, samples = [prompt for prompt in prompts for _ in range(len(samples) or 1)], as_samples([])
    if not len(samples) and not prompts:
        return []
    how = seeded_by_item(how, samples) if len(samples) else how.for_items(prompts)
    if not len(samples) and continues(run, task):
        return joined(stream_prompts(run, name, prompts, how, say), len(prompts))
    return generated_items(run, name, prompts, samples, how)


def streamed(
    run: TrainedRun, prompts: Prompts, samples: Samples, target: str | None, how: Generating, say: Say
) -> Iterator[list[str]]:  # fmt: skip
    """Returns an iterator over lists with the next part of every text, one per sample or per prompt; see
    `Run.stream`."""
    name, task = generating_task(run, samples, target, say)
    if not continues(run, task):
        raise RunError(f"{run.folder} generates complete items of {task.target!r}, which cannot be streamed")
    if samples.column_names:
        split = run.as_split(samples)
        indices = sorted(split.all(), key=lambda index: index.number)
        how = seeded_by_item(how, samples)
        return stream_texts(Generation.of(run, split, indices, replace(how, prompt=one_of(prompts))), name)
    return stream_prompts(run, name, prompts, how, say)


def generating_task(run: TrainedRun, samples: Samples, target: str | None, say: Say) -> tuple[str, Task]:
    """Returns (name, task): the task that generates the input `target`, or, if `target` is None, the first generated
    input that no sample contains. Calls `say` with a message about the inputs that samples lack. Raises RunError if no
    task generates the input, if a sample has an input that the task does not read, or if the task needs an encoder and
    no sample has a value."""
    run.check_heads()
    names = samples.column_names
    name, _ = run.text_task(names, target)
    task = run.tasks[name]
    check_samples(run, names, [name])
    if task.needs.encoder and not names:
        raise RunError(f"{run.folder} generates {task.target!r} from its other inputs: set them (--input NAME=VALUE)")
    inputs = inputs_of_task(run.tasks, list(run.choppers), name)
    has_inputs = [present(samples, number, inputs) or [] for number in range(len(samples))]
    report_missing(run, has_inputs or [[]], [name], say)
    return name, task


def continues(run: TrainedRun, task: Task) -> bool:
    """Returns whether a task generates a text token by token, so it can continue a prompt. Other tasks generate
    complete items."""
    return task.needs.generates and run.choppers[task.target].kind == "text"


def generated_items(run: TrainedRun, name: str, prompts: Prompts, samples: Samples, how: Generating) -> list[Any]:
    """Returns the items that the task `name` generates, one per sample in the order of the samples, or, without
    samples, one per prompt. For a task that refines drafts, a prompt becomes a draft: each printed mask (`<|mask|>`) in
    the prompt is a gap, and a prompt without masks is followed by masks. Raises RunError if a sample cannot be read, or
    if there is a prompt for an item that is not a text."""
    task = run.tasks[name]
    text, count = run.choppers[task.target].kind == "text", len(samples) or len(prompts)
    if any(prompts) and not text:
        hint = "; --item FILE --fill POSITIONS keeps a part of an item" if task.needs.refines else ""
        raise RunError(f"--prompt is for texts, but {task.target!r} is not a text{hint}")
    prompt = one_of(prompts) if len(samples) else None
    if any(prompts) and task.needs.refines:
        drafts = [draft_of_prompt(run, task, prompt or "", how.max_tokens) for prompt in prompts]
        how = replace(how, draft=lambda number: drafts[number % len(drafts)])
    elif prompt:
        how = replace(how, prompt=prompt)
    if task.needs.refines and not run.on_samples:
        id_lists = generate_unprompted(run, name, count, how)
    else:
        split = run.as_split(samples if len(samples) else as_samples([{}] * count))
        indices = sorted(split.all(), key=lambda index: index.number)
        by_number = generate_items(run, name, split, indices, how)
        if split.skipped.bad:
            raise RunError(next(iter(split.skipped.bad.values())))
        id_lists = [by_number[index.number] for index in indices]
    items = [task.restore(ids) for ids in id_lists]
    return [before(item, how.stop) for item in items] if text else items


def one_of(prompts: Prompts) -> str:
    """Returns the only prompt, with which the texts of all samples begin; empty if there is none. Raises RunError if
    there is more than one prompt."""
    if len(prompts) > 1:
        raise RunError(
            f"{len(prompts)} prompts cannot be combined with inputs; write one prompt, with which every text begins"
        )
    return (prompts[0] if prompts else None) or ""


def draft_of_prompt(run: TrainedRun, task: Task, prompt: str, max_tokens: int | None) -> list[int]:
    """Returns the ids of a text with masks. If the prompt contains no mask, masks are appended: `max_tokens` masks, or
    else as many as the text then has the task's usual number of tokens, or else as many as fit into the context."""
    chopper = run.choppers[task.target].with_marks(["mask"])
    vocabulary, ids = chopper.vocabulary, chopper.encoded(prompt)
    if task.mask in ids:
        return ids
    frame = len(vocabulary.before) + len(vocabulary.after) if run.on_samples else 0
    room = run.model.context - len(ids) - frame
    count = max_tokens or (room if task.refining.tokens is None else task.refining.tokens - len(ids))
    return [*ids, *[task.mask] * max(min(count, room), 0)]
