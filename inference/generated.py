"""What a model generates for the samples of a split, to be judged."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ..data.processes import Processes
from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.generation.session import Session
from ..models.model import Model
from ..tasks.judging import Generated
from ..tasks.language_modeling import LanguageModeling
from .generate import write
from .generating import Generating, Written, pieces

UNPROMPTED = 1000
"""So many items are generated for the metrics of a corpus, at most."""


def generated_share(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places: Sequence[Place],
    processes: Processes, inputs: Collection[str] | None, rows: int,
) -> list[Generated]:  # fmt: skip
    """This process's share of what the model generates from the other inputs (only those of `inputs`, where given) of
    the samples at these places, `rows` at a time, each beside the true item; as the task says: by its search, or drawn
    with a seed that follows from the places. Samples without a true item are left out: any would be wrong for them."""
    if split.samples is None:
        return unprompted_share(model, name, task, processes, rows, min(len(places), UNPROMPTED))
    found: list[Generated] = []
    places = [each for each in places if reference(split, each, task.target) is not None]
    how = Generating(sampling=task.sampling, guidance=task.guidance)
    for group in processes.share([places[first : first + rows] for first in range(0, len(places), rows)]):
        generator = replace(how, seed=group[0].number).generator(model)
        for number, ids in write(model, name, task, split, group, how, inputs, generator).items():
            given, labels = split.item(number)
            found.append(Generated(whole(task, ids), given[task.target], labels))
    return found


def unprompted_share(
    model: Model, name: str, task: LanguageModeling, processes: Processes, rows: int, count: int
) -> list[Generated]:
    """This process's share of `count` items that the model generates from nothing, `rows` at a time."""
    known, found = task.vocabulary, []
    how = Generating(sampling=task.sampling, max_tokens=model.context - 1).with_rule(known.well_formed)
    for first in processes.share(list(range(0, count, rows))):
        prompts = [[known.start]] * min(rows, count - first)
        session = Session.of_texts(model, prompts, input=task.target, task=name, vocabulary=known.size,
                                   most=how.max_tokens)  # fmt: skip
        written = [Written(known.ends) for _ in prompts]
        for _ in pieces(session, written, how, task.search, replace(how, seed=first).generator(model)):
            pass
        found += [Generated(whole(task, row.ids), None, {}) for row in written]
    return found


def whole(task: LanguageModeling, ids: Sequence[int]) -> Any:
    """The item of generated ids; None where they are none, as where a picture was cut short."""
    try:
        return task.restore(ids)
    except ValueError:
        return None


def reference(split: SampleSplit, place: Place, target: str) -> Any:
    """The true item of a sample; None where it has none, or is bad."""
    try:
        return split.item(place.number)[0].get(target)
    except ValueError:
        return None
