"""The texts of a split: those that a model generates from the other inputs, with the true ones."""

from __future__ import annotations

from ..data.sampler import Place
from ..data.samples.split import SampleSplit
from ..models.model import Model
from ..tasks.language_modeling import LanguageModeling
from .generate import write_texts


def written_pairs(
    model: Model, name: str, task: LanguageModeling, split: SampleSplit, places, inputs, rows: int
) -> list[tuple[str, str]]:  # fmt: skip
    """(hypothesis, reference) pairs of the samples at these places: the text that the model generates from the other
    inputs (only those of `inputs`, where given) by the task's search, and the true one. Samples without a reference are
    left out: any text would be wrong for them."""
    found: list[tuple[str, str]] = []
    places = [each for each in places if reference(split, each, task.target) is not None]
    for first in range(0, len(places), max(rows, 64)):
        texts = write_texts(model, name, task, split, places[first : first + max(rows, 64)], inputs=inputs)
        found += [(text, split.item(number)[0][task.target]) for number, text in texts.items()]
    return found


def reference(split: SampleSplit, place: Place, target: str) -> str | None:
    """The true text of a sample; None where it has none, or is bad."""
    try:
        return split.item(place.number)[0].get(target)
    except ValueError:
        return None
