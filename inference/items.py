"""Items of every kind of generation: token after token, or refined from drafts."""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
    model: Model, name: str, task: Task, split: SampleSplit, places: Sequence[Place], how: Generating = Generating(),
    inputs: Collection[str] | None = None, generator: torch.Generator | None = None,
) -> dict[int, list[int]]:  # fmt: skip
    """The ids of the items that the model generates from the other inputs (only those of `inputs`, where given) of the
    samples at these places, by the samples' numbers; bad samples are left out."""
    generator = generator or how.generator(model)
    if not task.needs.refines:
        return write(model, name, task, split, places, how, inputs, generator)
    numbers, draft = draft_of_samples(model, name, task, split, places, how, inputs)
    return {} if draft is None else dict(zip(numbers, refined(model, task, draft, how, generator)))


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
