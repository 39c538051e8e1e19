"""Items of every kind of generation: token after token, or refined from drafts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.base import Task
from .generate import write
from .generating import Generating, Written, pieces
from .refining import draft_of_rows, draft_of_samples, refined


def generate_items(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place],
    how: Generating = Generating(), inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that the model generates for the task `name` from the other inputs (only those of `inputs`,
    where given) of the samples at these places, by the samples' numbers; bad samples are left out."""
    task, generator = tasks[name], generator or how.generator(model)
    if not task.needs.refines:
        return write(model, name, task, split, places, how, inputs, generator)
    first = {
        made.target: generated_first(model, tasks, other, split, places, inputs, generator)
        for other, made in tasks.items()
        if made.target in task.refining.through
    }
    numbers, draft = draft_of_samples(model, name, task, split, places, how, inputs, first)
    return {} if draft is None else dict(zip(numbers, refined(model, task, draft, how, generator)))


def generated_first(
    model: Model, tasks: Mapping[str, Task], name: str, split: SampleSplit, places: Sequence[Place],
    inputs: Collection[str] | None, generator: torch.Generator | None,
) -> Callable[[int], list[int]]:  # fmt: skip
    """The ids of the target of the task `name` by a sample's number: its own item's, or, where it has none or `inputs`
    does not name it, those that the model generates as the task does."""
    task = tasks[name]
    known = inputs is None or task.target in inputs
    lacking = [each for each in places if not known or reference(split, each, task.target) is None]
    how = Generating(sampling=task.sampling, guidance=task.guidance)
    made = generate_items(model, tasks, name, split, lacking, how, inputs, generator) if lacking else {}

    def ids(number: int) -> list[int]:
        return made[number] if number in made else task.vocabulary.encode(split.item(number)[0][task.target])

    return ids


def reference(split: SampleSplit, place: Place, target: str) -> Any:
    """The true item of a sample; None where it has none, or is bad."""
    try:
        return split.item(place.number)[0].get(target)
    except ValueError:
        return None


def generate_unprompted(
    model: Model, name: str, task: Task, count: int, how: Generating, generator: torch.Generator | None = None
) -> list[list[int]]:
    """The ids of `count` items that the model generates from nothing: from the start token on, or from masks, as many
    as `how.max_tokens` or the context."""
    generator = generator or how.generator(model)
    if task.needs.refines:
        draft = how.draft or [task.mask] * (task.vocabulary.length or how.max_tokens or model.context)
        return refined(model, task, draft_of_rows(model, name, task, [draft] * count), how, generator)
    known = task.vocabulary
    session = Session.of_texts(model, [[known.start]] * count, input=task.target, task=name, vocabulary=known.size,
                               most=how.max_tokens or model.context - 1)  # fmt: skip
    written = [Written(known.ends) for _ in range(count)]
    for _ in pieces(session, written, how.with_rule(known.well_formed), task.search, generator):
        pass
    return [row.ids for row in written]
