"""Items that tasks generate by their own procedure (`Task.sample`), such as the refinement of drafts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit
from ..models.batch import Batch
from ..models.generation.procedure import Procedure
from ..models.generation.refine import Refining, hidden_nats
from ..models.generation.sampling import Sampling, Streams
from ..models.generation.session import padded, text_set
from ..models.model import Model
from ..tasks.base import Task, sampled
from .generate import Generating, Generation

First = Mapping[str, Callable[[int], Any]]
"""Items that are generated before others: by input, a function from the number of a sample to its item."""


def refined_samples(generation: Generation, name: str, first: First) -> dict[int, Any]:
    """Generates an item for each sample with the procedure of the task `name`. Returns the items by sample number. The
    model reads the inputs of the sample and the items that were generated `first`. Bad samples are left out."""
    tasks, how = generation.trained.tasks, generation.how
    task = tasks[name]
    numbers, batch, without = batch_of_samples(generation, name, first)
    if not numbers:
        return {}
    procedure = procedure_of(name, task, how, generation.random.of(numbers), without)
    refining = procedure.refining
    names = passed_through(tasks, name, refining) if refining.drafts > 1 else ()
    scoring = [other for other in names if tasks[other].target in refining.through]
    cost_of = cost_of_reading(generation, task, scoring, numbers, first) if scoring else None
    return dict(zip(numbers, refined(task, generation.trained.model, batch, procedure, cost_of)))


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


def batch_of_samples(generation: Generation, name: str, first: First) -> tuple[list[int], Batch, Batch | None]:
    """Returns (numbers, batch, without): the numbers of the samples that can be read, these samples with the items from
    which the task `name` generates, and the same without their other inputs, for guidance (None: no guidance). The item
    is `how.draft`, or the blank item of the task. The tokens around it, such as a start token, are those of training.
    The model reads only the inputs and the items that were generated `first`. Raises ValueError if the number of tokens
    of an item is unknown."""
    split, how, task = generation.split, generation.how, generation.trained.tasks[name]

    def item(number: int) -> Any:
        draft = how.draft_of(number)
        return task.blank(split.item(number)[0].get(task.target), how.max_tokens) if draft is None else draft

    def read(others: Mapping[str, Any], inputs: Collection[str]) -> Batch:
        """Returns the samples with the draft, the items `others`, and only these of their `inputs`."""
        new = {**others, task.target: item}
        # None: `read` does not keep the true value of a predicted input.
        predicted = {name: None for name in split.inputs.targets if name not in inputs}
        return split.read(generation.indices, inputs={*inputs, *new}, rows="one_each", replaced={**predicted, **new})

    batch = read(first, generation.inputs or ())
    numbers = [split.reader.number(key) for key in batch.first.keys]
    return numbers, batch, read({}, ()) if how.guidance != 1 and numbers else None


def batch_of_rows(model: Model, task: Task, rows: Sequence[Sequence[int]]) -> Batch:
    """Returns rows of ids that contain masks, such as windows of a corpus, as a batch. There are no other inputs and no
    tokens around a row. Raises ValueError if a row is longer than the context."""
    if (longest := max(map(len, rows))) > model.context:
        raise ValueError(f"a draft of {longest} tokens is longer than the context of {model.context}")
    return Batch(main=text_set(model, task.target, padded(rows)))


def procedure_of(
    name: str, task: Task, how: Generating, streams: Streams, without: Batch | None = None
) -> Procedure:  # fmt: skip
    """Returns the settings `how` for the procedure of the task `name`; a setting that is None is taken from the task.
    Raises ValueError if the positions `filled` are set without an item, or for an item of ids."""
    if how.filled and (how.draft is None or task.choppers[task.target].vocabulary is not None):
        raise ValueError(
            "filled needs draft, an item without ids whose other tokens are kept; a draft of ids has masks instead"
        )
    return Procedure(
        name=name, streams=streams, refining=how.refining or task.refining, guidance=how.guidance, without=without,
        sampling=how.sampling or task.sampling or Sampling(), show=how.show, filled=how.filled,
    )  # fmt: skip


def refined(
    task: Task, model: Model, batch: Batch, how: Procedure,
    cost_of: Callable[[list[Any]], Sequence[float]] | None = None,
) -> list[Any]:  # fmt: skip
    """Generates the items of a batch with the procedure of a task. `cost_of` is a function from all items to the costs
    of the items. If it is passed, `refining.drafts` items are generated for each sample, and the item with the lowest
    cost is kept. Calls `how.show` with the states of the kept items."""
    if cost_of is None:
        return sampled(how.name, task, model, batch, how)
    kept: list[tuple[float, Any, list[Any]]] = []
    for _ in range(how.refining.drafts):
        steps: list[list[Any]] = []
        items = sampled(how.name, task, model, batch, replace(how, show=steps.append))
        candidates = [*zip(cost_of(items), items, zip(*steps, strict=True), strict=True)]
        kept = [min(pair, key=itemgetter(0)) for pair in zip(kept or candidates, candidates)]
    for states in zip(*(states for _, _, states in kept)):
        how.show(list(states))
    return [item for _, item, _ in kept]


def cost_of_reading(
    generation: Generation, task: Task, scoring: Sequence[str], numbers: Sequence[int], first: First
) -> Callable[[list[Any]], list[float]]:
    """Returns a function from the items that `task` generated, one per sample in the order of `numbers`, to the costs
    of these items. The tasks `scoring` predict their targets only from the generated items. The cost is the sum
    over these tasks of the loss in nats, measured on the items that were generated `first`."""
    trained, split = generation.trained, generation.split

    def cost(generated: list[Any]) -> list[float]:
        row = {number: row for row, number in enumerate(numbers)}
        total = [0.0] * len(numbers)
        for name in scoring:
            other = trained.tasks[name]
            new = dict.fromkeys(split.inputs.targets)
            new |= {task.target: lambda number: generated[row[number]], other.target: first[other.target]}
            indices = [SampleIndex(0, 0, number) for number in numbers]
            batch = split.read(indices, inputs={task.target, other.target}, rows="one_each", replaced=new)
            nats = hidden_nats(other.draft(name, trained.model, batch)).tolist()
            for key, value in zip(batch.first.keys, nats, strict=True):
                total[row[split.reader.number(key)]] += value
        return total

    return cost
