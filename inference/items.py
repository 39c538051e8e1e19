"""Generates items for samples and for a corpus. For metrics of generated items, each process generates its share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, Split
from ..models.batch import Batch
from ..models.generation.refine import chain_nats
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.judging import Generated
from ..tasks.masked_diffusion import MaskedDiffusion
from .generate import Generating, Generation, Written, pieces, write
from .refine import batch_of_rows, generated_first, passed_through, procedure_of, refined, refined_samples
from .trained import TrainedModel


def generate_items(
    trained: TrainedModel, name: str, split: SampleSplit, indices: Sequence[SampleIndex],
    how: Generating = Generating(), inputs: Collection[str] | None = None,
) -> dict[int, Any]:  # fmt: skip
    """Generates an item for each sample with the task `name`. Returns the items, as ids or as `Task.sample` returns
    them, by sample number. `inputs` are the other inputs that the model may read (None: all). Bad samples are left
    out."""
    generation = Generation.of(trained, split, indices, how, inputs)
    task = trained.tasks[name]
    if not task.needs.refines:
        return write(generation, name)
    return refine_items(generation, name)


def refine_items(generation: Generation, name: str) -> dict[int, Any]:
    """Generates an item for each sample with the procedure of the task `name`, after the items through which it is
    refined."""
    trained, split, how, inputs = generation.trained, generation.split, generation.how, generation.inputs
    task = trained.tasks[name]
    others = {input for input in (split.choppers if inputs is None else inputs) if input != task.target}
    generation = replace(generation, inputs=others)
    first: dict[str, Callable[[int], Any]] = {}
    for other in passed_through(trained.tasks, name, how.refining or task.refining):
        first[trained.tasks[other].target] = generated_first(generation, other, first)
    return refined_samples(generation, name, first)


def generate_unprompted(trained: TrainedModel, name: str, count: int, how: Generating) -> list[list[int]]:
    """Generates `count` items with a model of a corpus, without a prompt and without other inputs, and returns the ids
    of each item. Generation begins with the start token, or with a draft for tasks that refine drafts. An item has at
    most `how.max_tokens` tokens. If `how.max_tokens` is None, the context length is the limit. For a draft, the fixed
    length of the vocabulary is used first, and `refining.tokens` before the context length."""
    model, task = trained.model, trained.tasks[name]
    streams = how.for_items([None] * count).random().of(range(count))
    if task.needs.refines:
        blank = task.blank(None, how.max_tokens or (how.refining or task.refining).tokens or model.context)
        batch = batch_of_rows(model, task, [how.draft_of(number) or blank for number in range(count)])
        return refined(task, model, batch, procedure_of(name, task, how, streams))
    vocabulary = task.vocabulary
    session = Session.of_texts(
        model, [[vocabulary.start]] * count, input=task.target, task=name, vocabulary=vocabulary.size,
        most=how.max_tokens or model.context - 1,
    )  # fmt: skip
    rows = [Written(vocabulary.ends) for _ in range(count)]
    for _ in pieces(session, rows, how.constrained(vocabulary.well_formed), task.search, streams):
        pass
    return [row.ids for row in rows]


UNPROMPTED = 1000
"""The maximum number of items that are generated for the metrics of a corpus."""

CHAINS, CHAIN_ROWS = 64, 16
"""CHAINS: the maximum number of items whose left-to-right loss is computed. CHAIN_ROWS: the number of items per batch
for this loss. A batch takes one forward pass for each token of its longest item."""


def generated_share(
    trained: TrainedModel, name: str, split: Split, indices: Sequence[SampleIndex], inputs: Collection[str] | None,
    rows: int,
) -> list[Generated]:  # fmt: skip
    """Generates items for the samples at `indices`, which all have a true item. Returns the generated and true items of
    this process's share of the samples. `inputs` are the inputs that the model may read (None: all). `rows` is the
    batch size. The settings are those of the task. The random seed of an item is the number of its sample. For a
    corpus, one item per index is generated without inputs, at most `UNPROMPTED` items."""
    if not split.answerable:
        return unprompted_share(trained, name, rows, min(len(indices), UNPROMPTED))
    task, pairs = trained.tasks[name], list[Generated]()
    how = Generating(sampling=task.sampling, guidance=task.guidance, seed=range(len(split)))
    for group in trained.processes.share([indices[first : first + rows] for first in range(0, len(indices), rows)]):
        for number, ids in generate_items(trained, name, split, group, how, inputs).items():
            sample, labels = split.item(number)
            pairs.append(Generated(restored(task, ids), sample[task.target], labels, number))
    return pairs


def unprompted_share(trained: TrainedModel, name: str, rows: int, count: int) -> list[Generated]:
    """Returns this process's share of `count` items that are generated without a prompt and without other inputs, in
    batches of `rows` items. The true items are None."""
    task, pairs = trained.tasks[name], list[Generated]()
    for first in trained.processes.share(list(range(0, count, rows))):
        numbers = range(first, min(first + rows, count))
        items = generate_unprompted(trained, name, len(numbers), Generating(sampling=task.sampling, seed=numbers))
        pairs += [Generated(restored(task, ids), None, {}) for ids in items]
    return pairs


def chain_share(
    trained: TrainedModel, name: str, split: Split, indices: Sequence[SampleIndex], inputs: Collection[str] | None
) -> dict[str, Tensor]:
    """Returns four sums over this process's share of the items at `indices`: the left-to-right loss in nats (`chain`),
    the number of tokens (`chain_tokens`), the size in units (`chain_units`), and the number of items
    (`chain_samples`)."""
    task, sums = trained.tasks[name], torch.zeros(4)
    for group in trained.processes.share(
        [indices[first : first + CHAIN_ROWS] for first in range(0, len(indices), CHAIN_ROWS)]
    ):
        batch = split.read(group, inputs=inputs)
        if task.target in batch.main.chunks:
            nats, tokens = chain_of(trained.model, name, task, batch)
            sums = sums + torch.tensor([nats, tokens, batch.units.get(task.target, 0.0), len(group)])
    return dict(zip(("chain", "chain_tokens", "chain_units", "chain_samples"), sums))


def restored(task: Task, item: Any) -> Any:
    """Returns what a generated item represents. Returns None if `task.restore` raises ValueError, for example for an
    incomplete picture."""
    try:
        return task.restore(item)
    except ValueError:
        return None


def chain_of(model: Model, name: str, task: MaskedDiffusion, batch: Batch) -> tuple[float, float]:
    """Returns (loss, tokens), summed over the true items of a batch: the negative log-likelihood in nats, where each
    token is predicted from the tokens before it, and the number of predicted tokens."""
    draft = task.draft(name, model, batch)
    return chain_nats(draft), float(draft.scored.sum())
