"""From a checked configuration to objects: choppers, tasks, the model, the splits of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..data.card import Card
from ..data.stream import StreamSplit
from ..data.token_file import prepare, prepared_folder
from ..models.batch import Batch
from ..models.mixture import Mixture
from ..models.transformer import Transformer
from ..tasks.task import Task
from ..tokenizers.chopper import Chopper
from .config import Config


def build_choppers(config: Config, assets: Path, card: Card | None = None) -> dict[str, Chopper]:
    """Every input's chopper: what `fit` found comes from `assets`, or is found in the card's training split and kept there.

    Without a card nothing is fitted: a run works without its data.
    """
    made = {}
    for name, part in config.inputs.items():
        chopper = part.build(part.target.Chopper)
        folder = assets / name
        if card is not None and not folder.exists():
            chopper = chopper.fit(lambda: training_texts(card))
            chopper.save(folder)
        made[name] = chopper.load(folder) if folder.exists() else chopper
    return made


def training_texts(card: Card) -> Iterable[str]:
    """The texts of the training split, one document after another."""
    return (document.text for document in card.documents("train"))


def build_tasks(config: Config) -> dict[str, Task]:
    """The tasks by name."""
    return {name: part() for name, part in config.tasks.items()}


def build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Mixture:
    """The model with its first values, drawn from torch's global generator."""
    width, context = config.model.options["width"], config.model.options["context"]
    tokenizers = {name: part(choppers[name], width, context) for name, part in config.inputs.items()}
    core = config.model.build(Transformer, list(config.inputs), axes_of(choppers.values()))
    heads = {name: task.head(tokenizers, width) for name, task in tasks.items()}
    return config.model.build(Mixture, tokenizers, {"main": core}, heads)


def axes_of(choppers: Iterable[Chopper]) -> list[str]:
    """The position axes of a set: the running order, then every axis that an input's tokens have."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.axes)]))


def open_split(
    config: Config, card: Card, split: str, choppers: Mapping[str, Chopper], *, progress: bool = True
) -> StreamSplit:
    """One split of the corpus, tokenized (once, into the cache folder) and cut into windows of the context."""
    (chopper,) = choppers.values()
    file = prepare(card, split, chopper.text, prepared_folder(card, chopper.text), progress=progress)
    return StreamSplit(
        file=file, name=split, context=config.model.options["context"], separate=config.data.documents == "separate"
    )


def make_batch(split: StreamSplit, starts: list[int], tasks: Mapping[str, Task], input: str) -> Batch:
    """The windows at these places as a batch with every task's targets."""
    planned = split.batch(starts, input)
    return Batch(sets={"main": planned}, targets={name: task.targets(planned) for name, task in tasks.items()})
