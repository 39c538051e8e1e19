"""The refinement of drafts: items whose tokens are predicted together, in several rounds (tasks that refine)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

import torch

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit
from ..models.batch import Batch
from ..models.generation.refine import Draft, Refining, hidden_nats
from ..models.generation.sampling import Streams
from ..models.generation.session import padded, text_set
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.masked_diffusion import MaskedDiffusion
from .generate import Generating, Generation

First = Mapping[str, Callable[[int], Any]]
"""Items that are generated before others: by input, a function from the number of a sample to its item."""


def refined_samples(generation: Generation, name: str, first: First) -> dict[int, list[int]]:
    """Refines a draft for each sample with the task `name`. Returns the ids by sample number. The model reads the
    inputs of the sample and the items that were generated `first`. Bad samples are left out."""
    tasks, how = generation.trained.tasks, generation.how
    task = tasks[name]
    numbers, draft = draft_of_samples(generation, name, first)
    if draft is None:
        return {}
    refining = how.refining or task.refining
    names = passed_through(tasks, name, refining) if refining.drafts > 1 else ()
    scoring = [other for other in names if tasks[other].target in refining.through]
    cost_of = cost_of_reading(generation, task, scoring, numbers, first) if scoring else None
    return dict(zip(numbers, refined(task, draft, how, generation.random.of(numbers), cost_of)))


def passed_through(tasks: Mapping[str, Task], name: str, refining: Refining) -> list[str]:
    """Returns the names of the tasks that generate the inputs `refining.through` of the task `name`, or inputs that
    these tasks in turn need in their own `refining.through`. The order is that of `tasks`; only tasks before `name` are
    considered. If several tasks generate the same input, only the first of these tasks is returned."""
    wanted, names = set(refining.through), []
    for other in reversed(list(tasks)[: list(tasks).index(name)]):
        task = tasks[other]
        if task.needs.refines and task.target in wanted:
            names = [other, *(later for later in names if tasks[later].target != task.target)]
            wanted |= set(task.refining.through) - {task.target}
    return names


def generated_first(generation: Generation, name: str, first: First) -> Callable[[int], Any]:
    """Returns a function from a sample's number to an item of the target of the task `name`. The function returns the
    true item if the sample has one and the model may read the target. Otherwise it returns the ids of an item that was
    generated from the other inputs and `first` with the settings of the task, or None for a bad sample."""
    split, inputs, task = generation.split, generation.inputs or (), generation.trained.tasks[name]
    with_target = {*with_item(split, generation.indices, task.target)} if task.target in inputs else set()
    without_target = [index for index in generation.indices if index not in with_target]
    how = Generating(sampling=task.sampling, guidance=task.guidance, max_tokens=task.refining.tokens)
    others = [input for input in inputs if input != task.target]
    generated = {}
    if without_target:
        generated = refined_samples(replace(generation, indices=without_target, how=how, inputs=others), name, first)
    missing = {index.number for index in without_target}

    def item(number: int) -> Any:
        return generated.get(number) if number in missing else split.item(number)[0][task.target]

    return item


def with_item(split: SampleSplit, indices: Sequence[SampleIndex], target: str) -> list[SampleIndex]:
    """Returns the indices of the samples that have a true item of the input `target`. Bad samples are left out."""

    def has_item(number: int) -> bool:
        try:
            return split.item(number)[0].get(target) is not None
        except ValueError:
            return False

    return [index for index in indices if has_item(index.number)]


def draft_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch, without: Batch | None = None) -> Draft:
    """Returns the draft of a batch. The items of the task's target in this batch already contain the masks. `without`
    is the same batch without the other inputs, for classifier-free guidance (None: no guidance)."""
    never = torch.from_numpy(~(task.plain & task.vocabulary.used))
    return Draft(model, batch, input=task.target, task=name, vocabulary=task.vocabulary.size, mask=task.mask,
                 never=never, without=without)  # fmt: skip


def draft_of_samples(generation: Generation, name: str, first: First) -> tuple[list[int], Draft | None]:
    """Returns the numbers of the samples that can be read, and a draft of their items (None if no sample can be read).
    The draft is `how.draft`, or consists of masks. The number of masks is the first known value of: the fixed length of
    the items, `how.max_tokens`, and the length of the true item (without a true item: `refining.tokens` of the task).
    Raises ValueError if all are unknown. The tokens around an item, such as a start token, are those of training. The
    model reads only the inputs and the items that were generated `first`."""
    model, split, how = generation.trained.model, generation.split, generation.how
    task = generation.trained.tasks[name]

    def ids(number: int) -> tuple[int, ...]:
        if (draft := how.draft_ids(number)) is not None:
            return draft
        item, vocabulary = split.item(number)[0].get(task.target), task.vocabulary
        default = task.refining.tokens if item is None else len(vocabulary.encode(item))
        if not (length := vocabulary.length or how.max_tokens or default):
            raise ValueError(f"the length of {task.target!r} varies; set --max-tokens, or refining.tokens of its task")
        return (task.mask,) * length

    def read(others: Mapping[str, Any], inputs: Collection[str]) -> Batch:
        """Returns the samples with the draft, the items `others`, and only these of their `inputs`."""
        new = {**others, task.target: ids}
        # None: `read` does not keep the true value of a predicted input.
        predicted = {name: None for name in split.inputs.targets if name not in inputs}
        return split.read(generation.indices, inputs={*inputs, *new}, rows="one_each", replaced={**predicted, **new})

    batch = read(first, generation.inputs or ())
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, draft_of(model, name, task, batch, read({}, ()) if how.guidance != 1 else None)


def draft_of_rows(model: Model, name: str, task: MaskedDiffusion, rows: Sequence[Sequence[int]]) -> Draft:
    """Returns a draft of rows of ids that contain masks, such as windows of a corpus. There are no other inputs and no
    tokens around a row. Raises ValueError if a row is longer than the context."""
    if (longest := max(map(len, rows))) > model.context:
        raise ValueError(f"a draft of {longest} tokens is longer than the context of {model.context}")
    return draft_of(model, name, task, Batch(main=text_set(model, task.target, padded(rows))))


def refined(
    task: MaskedDiffusion, draft: Draft, how: Generating, streams: Streams | None = None,
    cost_of: Callable[[list[list[int]]], Sequence[float]] | None = None,
) -> list[list[int]]:  # fmt: skip
    """Replaces all masks of a draft by ids and returns the ids of every item. The settings of `how` are used; a setting
    that is None is taken from the task. `cost_of` is a function from the ids of all items to the costs of the items. If
    it is passed, `refining.drafts` drafts are refined, and the draft with the lowest cost is kept for each item. Calls
    `how.show` with the ids after each step of the kept drafts."""
    refining, sampling = how.refining or task.refining, how.sampling or task.drawn_by
    streams = streams or how.random().of(range(len(draft.counts)))
    masks = draft.ids
    kept: list[tuple[float, list[list[int]]]] = []
    for _ in range(refining.drafts if cost_of else 1):
        draft.ids = masks.clone()
        steps = [draft.items(), *draft.refine(refining, sampling, how.guidance, streams)]
        costs = cost_of([task.without_special(ids) for ids in steps[-1]]) if cost_of else [0.0] * len(steps[-1])
        candidates = [(cost, list(ids)) for cost, *ids in zip(costs, *steps, strict=True)]
        kept = [min(pair, key=itemgetter(0)) for pair in zip(kept or candidates, candidates)]
    for items in zip(*(ids for _, ids in kept)):
        how.show(list(items))
    return [task.without_special(ids[-1]) for _, ids in kept]


def cost_of_reading(
    generation: Generation, task: MaskedDiffusion, scoring: Sequence[str], numbers: Sequence[int], first: First
) -> Callable[[list[list[int]]], list[float]]:
    """Returns a function from the ids that `task` generated, one item per sample in the order of `numbers`, to the
    costs of these items. The tasks `scoring` predict their targets only from the generated ids. The cost is the sum
    over these tasks of the loss in nats, measured on the items that were generated `first`."""
    trained, split = generation.trained, generation.split

    def cost(generated: list[list[int]]) -> list[float]:
        row = {number: row for row, number in enumerate(numbers)}
        total = [0.0] * len(numbers)
        for name in scoring:
            other = trained.tasks[name]
            new = dict.fromkeys(split.inputs.targets)
            new |= {task.target: lambda number: generated[row[number]], other.target: first[other.target]}
            indices = [SampleIndex(0, 0, number) for number in numbers]
            batch = split.read(indices, inputs={task.target, other.target}, rows="one_each", replaced=new)
            nats = hidden_nats(draft_of(trained.model, name, other, batch)).tolist()
            for key, value in zip(batch.first.keys, nats, strict=True):
                total[row[split.reader.number(key)]] += value
        return total

    return cost
