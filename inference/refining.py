"""Items that are refined from drafts: of samples, of nothing, or of what is given with masks in it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

import torch

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.batch import Batch
from ..models.generation.refine import Draft, chain_nats, hidden_nats
from ..models.generation.session import padded, text_set
from ..models.model import Model
from ..tasks.masked_diffusion import MaskedDiffusion
from .generating import Generating


def draft_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch, without: Batch | None = None) -> Draft:
    """The draft of a batch whose items of the task's target have masks in them."""
    never = torch.from_numpy(~(task.plain & task.vocabulary.used))
    return Draft(model, batch, input=task.target, task=name, vocabulary=task.vocabulary.size, mask=task.mask,
                 never=never, without=without)  # fmt: skip


def draft_of_samples(
    model: Model, name: str, task: MaskedDiffusion, split: SampleSplit, places: Sequence[Place], how: Generating,
    given: Collection[str], first: Mapping[str, Callable[[int], Any]] = {},
) -> tuple[list[int], Draft | None]:  # fmt: skip
    """The numbers of these samples, without bad ones, and a draft of their items (None: all are bad): `how.draft`, else
    as many masks as items have, or as `how` says, or as the sample's own has, or as the task says; framed as in
    training. Of all else nothing is read but the inputs `given`, and those that were generated `first`, by a sample's
    number."""

    def ids(number: int) -> tuple[int, ...]:
        if (draft := how.drafted(number)) is not None:
            return draft
        item, known = split.item(number)[0].get(task.target), task.vocabulary
        own = task.refining.tokens if item is None else len(known.encode(item))
        if not (length := known.length or how.max_tokens or own):
            told = "say how many (--max-tokens, or refining.tokens of its task)"
            raise ValueError(f"{task.target!r} may have any number of tokens: {told}")
        return (task.mask,) * length

    def read(others: Mapping[str, Any], inputs: Collection[str]) -> Batch:
        """The samples with the draft, these other items, and of their own no more than these inputs."""
        new = {**others, task.target: ids}
        predicted = {each: None for each in split.inputs.targets if each not in inputs}  # they would be kept
        return split.read(places, inputs={*inputs, *new}, rows="one_each", replaced={**predicted, **new})

    batch = read(first, given)
    numbers = [split.reader.number(key) for key in batch.first.keys]
    if not numbers:
        return [], None
    return numbers, draft_of(model, name, task, batch, read({}, ()) if how.guidance != 1 else None)


def draft_of_rows(model: Model, name: str, task: MaskedDiffusion, rows: Sequence[Sequence[int]]) -> Draft:
    """A draft of rows of ids, masks among them, alone in their set: windows of a corpus, without a frame. Raises
    ValueError for rows longer than the context."""
    if (longest := max(map(len, rows))) > model.context:
        raise ValueError(f"a draft of {longest} tokens is longer than the context of {model.context}")
    return draft_of(model, name, task, Batch(main=text_set(model, task.target, padded(rows))))


def refined(
    model: Model, task: MaskedDiffusion, draft: Draft, how: Generating, generator: torch.Generator | None = None,
    cost_of: Callable[[list[list[int]]], Sequence[float]] | None = None,
) -> list[list[int]]:  # fmt: skip
    """The ids of every item once all masks are filled in, drawn as `how` says, else as the task does; of as many drafts
    as that says the one of the least cost, where `cost_of` tells those of all items. `how.show` is called with the ids
    after each step."""
    refining, sampling = how.refining or task.refining, how.sampling or task.drawn_by
    generator, masks = generator or how.generator(model), draft.ids
    kept: list[tuple[float, list[list[int]]]] = []
    for _ in range(refining.drafts if cost_of else 1):
        draft.ids = masks.clone()
        steps = [draft.items(), *draft.refine(refining, sampling, how.guidance, generator)]
        costs = cost_of([task.without_special(ids) for ids in steps[-1]]) if cost_of else [0.0] * len(steps[-1])
        made = [(cost, list(ids)) for cost, *ids in zip(costs, *steps, strict=True)]
        kept = [min(two, key=itemgetter(0)) for two in zip(kept or made, made)]
    for items in zip(*(ids for _, ids in kept)):
        how.show(list(items))
    return [task.without_special(ids[-1]) for _, ids in kept]


def cost_of_reading(
    model: Model, task: MaskedDiffusion, read: Mapping[str, MaskedDiffusion], split: SampleSplit,
    numbers: Sequence[int], first: Mapping[str, Callable[[int], Any]],
) -> Callable[[list[list[int]]], list[float]]:  # fmt: skip
    """A function of the ids made for `task`, one item for each of these samples, to what it costs to read them: by each
    of the tasks `read` the nats of its target's item, which was `first`, predicted from the ids made and nothing else.
    """

    def cost(made: list[list[int]]) -> list[float]:
        row = {number: row for row, number in enumerate(numbers)}
        total = [0.0] * len(numbers)
        for name, other in read.items():
            new = dict.fromkeys(split.inputs.targets)
            new |= {task.target: lambda number: made[row[number]], other.target: first[other.target]}
            places = [Place(0, 0, number) for number in numbers]
            batch = split.read(places, inputs={task.target, other.target}, rows="one_each", replaced=new)
            nats = hidden_nats(draft_of(model, name, other, batch)).tolist()
            for key, each in zip(batch.first.keys, nats, strict=True):
                total[row[split.reader.number(key)]] += each
        return total

    return cost


def chain_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch) -> tuple[float, float]:
    """The nats of the true items of a batch from left to right, and the number of their tokens."""
    draft = draft_of(model, name, task, batch)
    return chain_nats(draft), float(draft.scored.sum())
