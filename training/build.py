"""From a checked configuration to objects: choppers, tasks, the model, the splits of the data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from ..data.card import Card
from ..data.root import DataError
from ..data.sample_split import Mixing, SampleSplit
from ..data.samples import SampleCard
from ..data.stream import StreamSplit
from ..data.token_file import prepare, prepared_folder
from ..models.batch import Batch
from ..models.mixture import Mixture
from ..models.transformer import Transformer
from ..tasks.task import Task
from ..tokenizers.chopper import Chopper
from .config import Config

Split = StreamSplit | SampleSplit
"""What training and evaluation read: `plan(seed, step, size)`, `all()`, and `batch(places)` as one planned set."""


def build_choppers(config: Config, assets: Path, card: Card | None = None) -> dict[str, Chopper]:
    """Every input's chopper: what `fit` found comes from `assets`, or is found in the card's training split and kept there.

    Without a card nothing is fitted: a run works without its data.
    """
    if isinstance(card, SampleCard) and not assets.exists():
        check_columns(config, card, {name: part() for name, part in config.tasks.items()})
        check_present(config, card)
    made = {}
    for name, part in config.inputs.items():
        chopper = part.build(part.target.Chopper)
        folder = assets / name
        if card is not None and not folder.exists():
            column = columns_of(config)[name]
            chopper = chopper.fit(lambda column=column: training_items(card, column))
            chopper.save(folder)
        made[name] = chopper.load(folder) if folder.exists() else chopper
    return made


def training_items(card: Card, column: str) -> Iterable:
    """One column of the training split, or the texts of a corpus, one document after another."""
    if isinstance(card, SampleCard):
        return card.open("train").column(column)
    return (document.text for document in card.documents("train"))


def columns_of(config: Config) -> dict[str, str]:
    """The data column that each input reads: the one of its own name, where `data.columns` does not name another."""
    return {name: config.data.columns.get(name, name) for name in config.inputs}


def build_tasks(config: Config, assets: Path | None = None, card: Card | None = None) -> dict[str, Task]:
    """The tasks by name: what `fit` found comes from `assets`, or is found in the card's training split and kept there."""
    made = {}
    for name, part in config.tasks.items():
        task = part()
        folder = assets / f"task-{name}" if assets else None
        if folder and not folder.exists() and isinstance(card, SampleCard):
            task = task.fit(card.open("train"))
            task.save(folder)
        made[name] = task.load(folder) if folder and folder.exists() else task
    return made


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
    config: Config, card: Card, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], *,
    progress: bool = True, say: Callable[[str], None] = print,
) -> Split:  # fmt: skip
    """One split of the data: samples, or a corpus that is tokenized (once, into the cache folder) and cut into windows."""
    context = config.model.options["context"]
    if isinstance(card, SampleCard):
        check_columns(config, card, tasks)
        samples = card.open(split)
        for task in tasks.values() if split != "train" else ():  # what is trained on was looked at by `fit`
            task.check(samples, split)
        return SampleSplit(
            samples=samples, name=split, choppers=choppers, mixing=mixing_of(config, tasks), context=context,
            axes=axes_of(choppers.values()), own=config.model.options["own_tokens"], say=say,
        )  # fmt: skip
    if len(choppers) != 1 or not hasattr(next(iter(choppers.values())), "text"):
        raise DataError(f"card {card.name!r} is a text corpus: it feeds one input of text, not {', '.join(choppers)}")
    ((name, chopper),) = choppers.items()
    file = prepare(card, split, chopper.text, prepared_folder(card, chopper.text), progress=progress)
    separate = config.data.documents == "separate"
    return StreamSplit(file=file, name=split, context=context, input=name, separate=separate)


def mixing_of(config: Config, tasks: Mapping[str, Task]) -> Mixing:
    """How this configuration's columns become inputs and labels."""
    dropout = config.training.input_dropout
    targets = {task.target for task in tasks.values() if task.target in config.inputs}
    labels = dict.fromkeys(column for task in tasks.values() for column in task.columns())
    each = dropout if isinstance(dropout, dict) else dict.fromkeys(config.inputs, dropout)
    return Mixing(
        columns=columns_of(config), targets=targets, labels=tuple(labels), dropout=each, bad_share=config.data.bad_share
    )


def check_columns(config: Config, card: SampleCard, tasks: Mapping[str, Task]) -> None:
    """Raises DataError when an input or a task reads a column that the data set does not have."""
    wanted = {f"inputs.{name}": column for name, column in columns_of(config).items()}
    wanted |= {f"tasks.{name}.target": column for name, task in tasks.items() for column in task.columns()}
    for path, column in wanted.items():
        if column not in card.columns:
            hint = (
                f" (data.columns can say which, as {{{path.split('.')[1]}: {card.columns[0]}}})"
                if path[0] == "i"
                else ""
            )
            raise DataError(
                f"{path}: card {card.name!r} has no column {column!r}; possible: {', '.join(card.columns)}{hint}"
            )


def check_present(config: Config, card: SampleCard) -> None:
    """Raises DataError for an input that no sample of the training split has."""
    samples = card.open("train")
    for name, column in columns_of(config).items():
        if column in card.columns and next(iter(samples.column(column)), None) is None:
            raise DataError(
                f"inputs.{name}: none of the {len(samples)} training samples has anything in column {column!r}"
            )


def make_batch(
    split: Split, places: Sequence, tasks: Mapping[str, Task], *, training: bool = False,
    inputs: Collection[str] | None = None,
) -> Batch:  # fmt: skip
    """The samples or windows at these places as a batch with every task's targets; of the inputs only those named."""
    planned = split.batch(places, training=training, inputs=inputs)
    return Batch(sets={"main": planned}, targets={name: task.targets(planned) for name, task in tasks.items()})
