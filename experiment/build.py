"""From a checked configuration to objects: choppers, tasks, the model, the splits of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from torch import nn

from ..data.base import Dataset
from ..data.corpus.prepare import prepare, prepared_folder
from ..data.corpus.split import StreamSplit
from ..data.samples.collate import Collator
from ..data.samples.dataset import SampleDataset
from ..data.samples.inputs import Inputs
from ..data.samples.split import SampleSplit, sample_split
from ..data.split import Split
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper, Role
from ..tokenizers.contract import check_complete
from ..tokenizers.files.reading import DataError
from ..training.optimizers import Optimizer
from .core import build_core
from .settings.config import Config
from .settings.sections import Training


def build_choppers(config: Config, assets: Path, dataset: Dataset | None = None) -> dict[str, Chopper]:
    """Every input's chopper, with what was learned of the training data: from `assets`, or learned now and kept there.

    Without a dataset nothing is learned: a run works without its data.
    """
    if isinstance(dataset, SampleDataset) and not assets.exists():
        check_columns(config, dataset, {name: part() for name, part in config.tasks.items()})
        check_present(config, dataset)
    columns, roles, made = columns_of(config), roles_of(config), {}
    for name, part in config.inputs.items():
        preprocessor, owner = part.build(part.target.Chopper), config.shares.get(name, name)
        check_complete(name, preprocessor)
        if dataset is not None and not (assets / owner).exists():
            read = [columns[each] for each in sharing(config, owner)]
            items = partial(dataset.training_items, read, preprocessor.fits_on)
            try:
                preprocessor.fit(items, roles[name]).save(assets / owner)
            except ValueError as error:
                raise ValueError(f"inputs.{owner}: {error}") from error
        made[name] = preprocessor.load(assets / owner, roles[name])
    return made


def sharing(config: Config, owner: str) -> list[str]:
    """The inputs of one tokenizer: its owner, and those that are `same_as` it."""
    return [name for name in config.inputs if config.shares.get(name, name) == owner]


def roles_of(config: Config) -> dict[str, Role]:
    """What the tasks want of each input. Inputs of one tokenizer share their special ids."""
    tasks = [part() for part in config.tasks.values()]
    generated = {task.target for task in tasks if task.generates}
    roles = {}
    for name in config.inputs:
        group = set(sharing(config, config.shares.get(name, name)))
        ids = [title for task in tasks if group & {*task.inputs()} for title in task.special_ids]
        roles[name] = Role(generated=name in generated, special_ids=tuple(dict.fromkeys(ids)))
    return roles


def columns_of(config: Config) -> dict[str, str]:
    """The data column that each input reads: the one of its own name, where `data.columns` does not name another."""
    return {name: config.data.columns.get(name, name) for name in config.inputs}


def build_tasks(
    config: Config, choppers: Mapping[str, Chopper], assets: Path | None = None, dataset: Dataset | None = None
) -> dict[str, Task]:
    """The tasks by name: what `fit` found comes from `assets`, or is found in the dataset's training split and
    kept there."""
    made = {}
    for name, part in config.tasks.items():
        task = part()
        folder = assets / f"task-{name}" if assets else None
        if folder and not folder.exists() and isinstance(dataset, SampleDataset):
            task = task.fit(dataset.opened("train"))
            task.save(folder)
        task = task.load(folder) if folder and folder.exists() else task
        made[name] = task.meet(choppers)
    return made


def build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Model:
    """The model with its first values, drawn from torch's global generator."""
    width, context, encoder = (config.model.options[name] for name in ("width", "context", "encoder"))
    encoded = encoded_inputs(config)
    tokenizers: dict[str, nn.Module | str] = {}
    for name, part in config.inputs.items():
        users = sharing(config, name)
        longest = max((encoder.context if each in encoded else context for each in users), default=context)
        tokenizers[name] = config.shares.get(name) or part(choppers[name], width, longest)
    names, axes = list(config.inputs), axes_of(choppers.values())
    cores, reads = {}, None
    if encoder:
        cores["encoder"] = build_core(config, axes, encoder)
        reads = {"encoder": encoded, "main": [name for name in names if name not in encoded]}
    cores["main"] = build_core(config, axes)
    modules = {name: tokenizers[config.shares.get(name, name)] for name in names}
    heads = {name: task.head(modules, width) for name, task in tasks.items()}
    return config.model.build(Model, tokenizers, cores, heads, reads)


def build_optimizer(training: Training, model: Model) -> Optimizer:
    """The optimizer of the section `training:`, at its own default rate where that names none."""
    target = getattr(training.optimizer, "target", training.optimizer)
    rate = target.default_rate if training.learning_rate is None else training.learning_rate
    return training.optimizer(model, rate)


def encoded_inputs(config: Config) -> list[str]:
    """The inputs that the encoder reads: all that no task writes; none where there is no encoder."""
    if config.model.options["encoder"] is None:
        return []
    written = {task.target for task in (part() for part in config.tasks.values()) if task.generates}
    return [name for name in config.inputs if name not in written]


def axes_of(choppers: Iterable[Chopper]) -> list[str]:
    """The position axes of a set: the running order, then every axis that an input's tokens have."""
    return list(dict.fromkeys(["order", *(axis for chopper in choppers for axis in chopper.axes)]))


def open_split(
    config: Config, dataset: Dataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], *,
    progress: bool = True, say: Callable[[str], None] = print,
) -> Split:  # fmt: skip
    """One split of the data: samples, or a corpus that is tokenized (once, into the cache folder) and cut into
    windows."""
    if isinstance(dataset, SampleDataset):
        return open_samples(config, dataset, split, choppers, tasks, say)
    made = {name for task in tasks.values() for name in task.makes()}
    read = {name: chopper for name, chopper in choppers.items() if name not in made}
    if len(read) != 1 or next(iter(read.values())).text is None:
        raise DataError(
            f"data set {dataset.name!r} is a text corpus: it feeds one input of text, not {', '.join(read)}"
        )
    ((name, chopper),) = read.items()
    file = prepare(dataset, split, chopper.text, prepared_folder(dataset, chopper.text), progress=progress)
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    window = max(task.window(context, encoder.context if encoder else 0) for task in tasks.values())
    return StreamSplit(
        file=file, name=split, context=window, input=name, separate=config.data.documents == "separate", tasks=tasks,
        rows=config.training.samples_per_step or config.training.tokens_per_step // window,
    )  # fmt: skip


def open_samples(
    config: Config, dataset: SampleDataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    say: Callable[[str], None],
) -> SampleSplit:  # fmt: skip
    """One split of samples, in which those that are known to be bad, or that no task can judge, are noted."""
    check_columns(config, dataset, tasks)
    samples = dataset.opened(split)
    opened = sample_split(
        samples, split, collator_of(config, choppers, inputs_of(config, tasks)), tasks=tasks, say=say,
        rows=config.training.samples_per_step, budget=config.training.tokens_per_step, bad_share=config.data.bad_share,
    )  # fmt: skip
    for number, why in samples.damaged():
        opened.bad.note(number, DataError(why), training=split == "train")
    for task in tasks.values() if split != "train" else ():  # what is trained on was looked at by `fit`
        for number, value in (each for column in task.columns() for each in samples.numbered(column)):
            try:
                task.check(value)
            except DataError as error:
                opened.bad.note(number, error)
    return opened


def collator_of(config: Config, choppers: Mapping[str, Chopper], inputs: Inputs) -> Collator:
    """What chops this configuration's samples and packs them."""
    encoder = config.model.options["encoder"]
    return Collator(
        choppers=choppers, inputs=inputs, context=config.model.options["context"], axes=axes_of(choppers.values()),
        encoder_context=encoder.context if encoder else 0, core=config.model.options["core_tokens"],
    )  # fmt: skip


def inputs_of(config: Config, tasks: Mapping[str, Task]) -> Inputs:
    """How this configuration's columns become inputs and labels."""
    dropout = config.training.input_dropout
    targets = {name for task in tasks.values() for name in task.inputs()}
    labels = dict.fromkeys(column for task in tasks.values() for column in task.columns())
    each = dropout if isinstance(dropout, dict) else dict.fromkeys(config.inputs, dropout)
    return Inputs(
        columns=columns_of(config), targets=targets, encoded=encoded_inputs(config), labels=tuple(labels), dropout=each,
        too_long=config.data.too_long,
    )  # fmt: skip


def check_columns(config: Config, dataset: SampleDataset, tasks: Mapping[str, Task]) -> None:
    """Raises DataError when an input or a task reads a column that the data set does not have."""
    wanted = {f"inputs.{name}": column for name, column in columns_of(config).items()}
    wanted |= {f"tasks.{name}.target": column for name, task in tasks.items() for column in task.columns()}
    for path, column in wanted.items():
        if column not in dataset.columns:
            hint = (
                f" (data.columns can say which, as {{{path.split('.')[1]}: {dataset.columns[0]}}})"
                if path[0] == "i"
                else ""
            )
            raise DataError(
                f"{path}: dataset {dataset.name!r} has no column {column!r}; possible: "
                f"{', '.join(dataset.columns)}{hint}"
            )


def check_present(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError for an input that no sample of the training split has."""
    samples = dataset.opened("train")
    for name, column in columns_of(config).items():
        if column in dataset.columns and next(iter(samples.column(column)), None) is None:
            raise DataError(
                f"inputs.{name}: none of the {len(samples)} training samples has anything in column {column!r}"
            )
