"""Items of every kind of generation: token after token, or refined from drafts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.generation.refine import Refining
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.base import Task
from .generate import write
from .generating import Generating, Written, pieces
from .refining import cost_of_reading, draft_of_rows, draft_of_samples, refined


def generate_items(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that the model generates for the task `name` from the other inputs (only those of `inputs`,
    where given) of the samples at these places, by the samples' numbers; bad samples are left out."""
    task, generator = tasks[name], generator or how.generator(model)
    if not task.needs.refines:
        return write(model, name, task, split, places, how, inputs, generator)
    given = {each for each in (split.choppers if inputs is None else inputs) if each != task.target}
    first: dict[str, Callable[[int], Any]] = {}
    for other in passed_through(tasks, name, how.refining or task.refining):
        first[tasks[other].target] = generated_first(model, tasks, other, split, places, given, first, generator)
    return refined_samples(model, tasks, name, split, places, how, given, first, generator)


def refined_samples(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place], how: Generating,
    given: Collection[str], first: Mapping[str, Callable[[int], Any]], generator: torch.Generator | None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that are refined for the task `name` from the inputs `given` and what was generated `first`,
    by the samples' numbers."""
    task = tasks[name]
    numbers, draft = draft_of_samples(model, name, task, split, places, how, given, first)
    if draft is None:
        return {}
    refining = how.refining or task.refining
    named = passed_through(tasks, name, refining) if refining.drafts > 1 else ()
    read = {each: tasks[each] for each in named if tasks[each].target in refining.through}
    cost_of = cost_of_reading(model, task, read, split, numbers, first) if read else None
    return dict(zip(numbers, refined(model, task, draft, how, generator, cost_of)))


def passed_through(tasks: Mapping[str, Task], name: str, refining: Refining) -> list[str]:
    """The tasks, in their order, whose targets a draft of the task `name` is refined through: those that `refining`
    names, and what these are refined through themselves. Of several tasks for one input the first."""
    wanted, found = set(refining.through), []
    for other in reversed(list(tasks)[: list(tasks).index(name)]):
        task = tasks[other]
        if task.needs.refines and task.target in wanted:
            found = [other, *(each for each in found if tasks[each].target != task.target)]
            wanted |= set(task.refining.through) - {task.target}
    return found


def generated_first(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place],
    given: Collection[str], first: Mapping[str, Callable[[int], Any]], generator: torch.Generator | None,
) -> Callable[[int], Any]:  # fmt: skip
    """The item of the target of the task `name` by a sample's number: its own, or, where it has none or it is not among
    the inputs `given`, the ids that the model generates of these and of what was generated `first`, as the task does;
    None for a bad sample."""
    task = tasks[name]
    known = {*with_item(split, places, task.target)} if task.target in given else set()
    lacking = [each for each in places if each not in known]
    how = Generating(sampling=task.sampling, guidance=task.guidance, max_tokens=task.refining.tokens)
    others = [each for each in given if each != task.target]
    made = refined_samples(model, tasks, name, split, lacking, how, others, first, generator) if lacking else {}
    missing = {each.number for each in lacking}

    def item(number: int) -> Any:
        return made.get(number) if number in missing else split.item(number)[0][task.target]

    return item


def with_item(split: SampleSplit, places: Sequence[Place], target: str) -> list[Place]:
    """The places of the samples that have a true item; bad ones have none."""

    def known(number: int) -> bool:
        try:
            return split.item(number)[0].get(target) is not None
        except ValueError:
            return False

    return [each for each in places if known(each.number)]


def generate_unprompted(
    model: Model, name: str, task: Task, count: int, how: Generating, generator: torch.Generator | None = None
) -> list[list[int]]:
    """The ids of `count` texts that a model of a corpus generates from nothing: after the start token, or from masks,
    as many as `how.max_tokens` or the context."""
    generator = generator or how.generator(model)
    if task.needs.refines:
        length = task.vocabulary.length or how.max_tokens or (how.refining or task.refining).tokens or model.context
        drafts = [how.drafted(number) or [task.mask] * length for number in range(count)]
        return refined(model, task, draft_of_rows(model, name, task, drafts), how, generator)
    known = task.vocabulary
    session = Session.of_texts(model, [[known.start]] * count, input=task.target, task=name, vocabulary=known.size,
                               most=how.max_tokens or model.context - 1)  # fmt: skip
    written = [Written(known.ends) for _ in range(count)]
    for _ in pieces(session, written, how.with_rule(known.well_formed), task.search, generator):
        pass
    return [row.ids for row in written]
