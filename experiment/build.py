"""Builds the parts of a configuration: choppers and tasks (fitted on the data, or loaded), splits, the model, the
optimizer and the evaluators. Also decides what the setting `auto` means on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import TypeAdapter
from torch import nn

from ..data.base import Dataset, cache_folder
from ..data.collate import Collator, Inputs
from ..data.corpus import StreamSplit
from ..data.division import balanced
from ..data.sample_dataset import SampleDataset
from ..data.samples import Samples
from ..data.skipped import IsBad, Skipped
from ..data.split import SampleSplit, Split, sample_split
from ..data.tokenizing import prepare, prepared_folder
from ..files.reading import DataError
from ..files.records import Record, read_record
from ..files.writing import write_json
from ..inference.evaluator import Evaluator
from ..inference.evaluators.metrics import Metrics
from ..inference.evaluators.samples import GeneratedSamples
from ..models.attention.grammar import parse_graph
from ..models.model import Cores, Encoder, Model
from ..models.transformer import Transformer
from ..tasks.base import Task, head_of
from ..tasks.judging import TrainingItems
from ..tokenizers.base import Chopper, Part, Preprocessor, Role, RunPart, check_complete, no_run, readable
from ..training.accounting import fast_half, missing_compiler
from ..training.checkpoints import CheckpointError
from ..training.optimizers import Optimizer
from .settings.checks import positioned
from .settings.config import Config
from .settings.registry import imported, trusting
from .settings.sections import Evaluation, Training


def check_columns(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError if the data set lacks a column that an input, a task or a judge of a task needs."""
    needed = {f"inputs.{name}": column for name, column in config.wiring.columns.items()}
    for name, needs in config.wiring.needs.items():
        needed |= {f"tasks.{name}.target": column for column in needs.columns}
        needed |= {f"tasks.{name}.metrics": column for column in needs.compared}
    for path, column in needed.items():
        if column not in (*dataset.columns, *dataset.joined):
            mapping = f"{{{path.split('.')[1]}: {dataset.columns[0]}}}"
            hint = f" (data.columns selects another column: {mapping})" if path.startswith("inputs") else ""
            if path.startswith("inputs") and config.inputs[path.split(".")[1]].target.Chopper.kind == "file":
                hint += f"; several columns are channels of one stream: data.columns: {{{path.split('.')[1]}: [x, y]}}"
            possible = ", ".join(dataset.columns) + hint
            raise DataError(f"{path}: dataset {dataset.name!r} has no column {column!r}; possible: {possible}")


def check_column(dataset: SampleDataset, column: str, key: str) -> None:
    """Raises DataError if the data set lacks a column that the setting `key` names."""
    if column not in dataset.columns:
        possible = ", ".join(dataset.columns)
        raise DataError(f"{key}: dataset {dataset.name!r} has no column {column!r}; possible: {possible}")


def check_present(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError if no sample of the training split has a value in the column of an input."""
    samples = dataset.opened("train")
    for name, column in config.wiring.columns.items():
        if column in (*dataset.columns, *dataset.joined) and next(iter(samples.column(column)), None) is None:
            unused = dataset.others()
            raise DataError(
                f"inputs.{name}: none of the {len(samples)} training samples has a value in column {column!r}"
                + (f"; dataset.columns does not name {', '.join(unused)}, which the samples have" if unused else "")
            )


def fit_chopper(
    config: Config, owner: str, preprocessor: Preprocessor, role: Role, dataset: Dataset, folder: Path
) -> None:
    """Fit the chopper of an input on the training data of all inputs that share it, and save it in a folder."""
    columns = [config.wiring.columns[input] for input in config.wiring.sharing(owner)]
    try:
        preprocessor.fit(partial(dataset.training_items, columns, preprocessor.fits_on), role).save(folder)
    except ValueError as error:
        raise ValueError(f"inputs.{owner}: {error}") from error


def build_choppers(
    config: Config, assets: Path, dataset: Dataset | None = None, open_run: Callable[..., RunPart] = no_run
) -> dict[str, Chopper]:
    """Returns the chopper of every input, by input name. A chopper contains what it learned from the training data (a
    vocabulary, a mean and a standard deviation). It is loaded from `assets/<input>/`, or, if this folder does not
    exist, fitted on `dataset` and saved there.

    If `dataset` is None, all choppers are loaded. `open_run` opens a trained run that is a part of this run. Raises
    DataError if an input has no column, if its column is empty in the training split, or if a file is damaged. Raises
    ValueError with the name of the input if a chopper cannot be fitted."""
    if dataset is not None and dataset.holds_samples and not assets.exists():
        check_columns(config, dataset)
        check_present(config, dataset)
    choppers = {}
    parts = {"open_run": open_run, "trust": config.trust, "cache": cache_folder()}
    roles = {name: replace(role, **parts) for name, role in config.wiring.roles.items()}
    for name, part in config.inputs.items():
        preprocessor, owner = part.of(part.target.Chopper)(), config.wiring.owners[name]
        check_complete(name, preprocessor)
        if dataset is not None and not (assets / owner).exists():
            fit_chopper(config, owner, preprocessor, roles[name], dataset, assets / owner)
        choppers[name] = preprocessor.placed(preprocessor.load(assets / owner, roles[name]))
    return choppers


def prepare_judges(
    config: Config, owner: str, task: Task, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None
) -> None:
    """Prepare the judges of the task `owner`. A judge is loaded from `assets/<judge>/` if this folder exists or
    `dataset` is None; otherwise it is fitted on `dataset` and saved there. Raises DataError if a judge needs a column
    but the data set contains only texts, if the items of the task have no ids, or if a judge cannot be fitted."""
    column = config.wiring.columns.get(task.target, "")
    for name, judge in task.judges.items():
        if (assets / name).exists() or dataset is None:
            judge.load(assets / name, open_run)
            continue
        if judge.columns and not dataset.holds_samples:
            reason = f"it compares with column {judge.columns[0]!r}, but dataset {dataset.name!r} contains only texts"
            raise DataError(f"tasks.{owner}.metrics.{name}: {reason}")
        chopper = task.choppers[task.target]
        if chopper.vocabulary is None and (judge.encoded or not task.needs.refines):
            reason = f"the input {task.target!r} has no ids, so its items cannot be generated and judged"
            raise DataError(f"tasks.{owner}.metrics.{name}: {reason}; for images write `use: image_ids`")

        def items(chopper: Chopper = chopper, encoded: bool = judge.encoded) -> Iterator[Any]:
            decoded = readable(dataset.training_items([column]), chopper.decode, "item", "to judge by")
            return map(chopper.vocabulary.encode, decoded) if encoded else decoded

        def values(name: str) -> Iterable[Any]:
            return dataset.opened("train").column(name)

        try:
            judge.fit(open_run, TrainingItems(items, values, chopper.vocabulary))
        except ValueError as error:
            raise DataError(f"tasks.{owner}.metrics.{name}: {error}") from error
        judge.save(assets / name)


class TrainingData:
    """The training samples, for `Task.fit`, which reads one column at a time. `say` prints a line. `columns` maps
    inputs to data columns; an input that is missing in `columns` reads the column of its name."""

    def __init__(self, samples: Samples, say: Callable[[str], None], columns: Mapping[str, str] | None = None):
        self.samples, self.say, self.columns = samples, say, columns or {}

    def __len__(self) -> int:
        return len(self.samples)

    def column(self, name: str) -> Iterator[Any]:
        """Returns the values of one data column in the order of the samples. Samples without a value are omitted."""
        return self.samples.column(name)

    def items(self, name: str) -> Iterator[Any]:
        """Returns the raw values of the input `name`. Samples without a value are omitted."""
        return self.samples.column(self.columns.get(name, name))

    def pairs(self, input: str, column: str) -> Iterator[tuple[Any, Any]]:
        """Returns the raw values of the input `input` and of one data column, of the samples that have both."""
        source = self.columns.get(input, input)
        for number, value in self.samples.numbered(column):
            raw = None
            with suppress(ValueError, OSError):  # reported as a bad sample when it is read
                raw = self.samples.row(number, (source,)).get(source)
            if raw is not None:
                yield raw, value


def choppers_and_tasks(
    config: Config, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Chopper], dict[str, Task]]:  # fmt: skip
    """Returns (choppers, tasks), each by name. They are loaded from `assets`, or fitted on `dataset` and saved there.
    If `dataset` is None, nothing is fitted. `open_run` opens a trained run that is a part of this run; `say` prints a
    line. Raises DataError if a file is missing or damaged, or if a task cannot be fitted on the data, and the errors of
    `build_choppers`."""
    choppers = build_choppers(config, assets, dataset, open_run)
    return choppers, build_tasks(config, choppers, assets, dataset, say, open_run)


def fit_task(
    config: Config, name: str, task: Task, folder: Path, dataset: Dataset | None, say: Callable[[str], None]
) -> None:
    """Load what a task has learned from `folder`. If the folder does not exist, learn it from the training split of
    `dataset`, and save it. Raises DataError if this is not possible."""
    if folder.exists():
        load_learned(task, folder)
    elif dataset is not None and dataset.holds_samples:
        task.learned = task.fit(TrainingData(dataset.opened("train"), say, config.wiring.columns))
        save_learned(task, folder)
    elif dataset is not None:
        column = next(iter(task.needs.columns), task.target)
        raise DataError(
            f"tasks.{name}: it needs a data set with the column {column!r}, but {dataset.name!r} is a text corpus"
        )
    elif config.data.dataset is not None:
        raise DataError(
            f"tasks.{name}: {folder} is missing. It holds what the task learned from its data; copy complete run "
            "folders. A run of an earlier version with `bounded` must be trained again"
        )


def build_tasks(
    config: Config, choppers: Mapping[str, Chopper], assets: Path | None = None, dataset: Dataset | None = None,
    say: Callable[[str], None] = print, open_run: Callable[..., RunPart] = no_run,
) -> dict[str, Task]:  # fmt: skip
    """Returns the tasks by name. What a task learned is loaded from `assets/task-<name>/`, or fitted on the training
    split of `dataset` and saved there. If `assets` is None, nothing is loaded or fitted. Raises DataError if a file is
    missing or damaged, if a task cannot be fitted on the data, or if the options of a task do not fit its target."""
    tasks = {}
    for name, template in config.wiring.tasks.items():
        task = tasks[name] = deepcopy(template)
        task.choppers = choppers
        check_texts(name, task)
        if task.needs.refines:
            check_through(name, task, tasks)
        if assets and task.Learned:
            fit_task(config, name, task, assets / f"task-{name}", dataset, say)
        if assets and task.judges:
            prepare_judges(config, name, task, assets / f"task-{name}", open_run, dataset)
    return tasks


def check_texts(name: str, task: Task) -> None:
    """Raises DataError if a task has metrics of texts, but its target is an input that is not a text."""
    if task.texts and task.target in task.choppers and task.choppers[task.target].kind != "text":
        conflict = f"tasks.{name}.metrics: {', '.join(task.texts)} compare texts, but {task.target!r} is not a text"
        raise DataError(f"{conflict}; possible: {{accepted: {{use: accepted_by, run: ...}}}}")


def check_through(name: str, task: Task, preceding_tasks: Mapping[str, Task]) -> None:
    """Raises DataError if a task refines drafts through an input (`refining.through`) that no preceding task refines,
    or that has no fixed number of tokens."""
    refiners = {task.target: (other, task) for other, task in reversed(preceding_tasks.items()) if task.needs.refines}
    refiners.pop(task.target, None)
    for target in task.refining.through:
        if target not in refiners or task.choppers[target].vocabulary is None:
            possible = ", ".join(reversed(refiners)) or "nothing"
            raise DataError(
                f"tasks.{name}.refining.through: no preceding task refines {target!r}; possible: {possible}"
            )
        other, refiner = refiners[target]
        if not (refiner.vocabulary.length or refiner.refining.tokens):
            reason = f"must be set, since {name!r} is refined through {target!r}, which has no fixed number of tokens"
            raise DataError(f"tasks.{other}.refining.tokens: {reason}")


def save_learned(task: Task, folder: Path) -> None:
    """Write what a task and its judges learned into `folder`; for example `classes.json` contains `["cat", "dog"]`.
    Nothing is written for a task that learned nothing."""
    for name, judge in task.judges.items():
        judge.save(folder / name)
    if task.learned is not None:
        write_json(folder / file_name(task), TypeAdapter(task.Learned).dump_python(task.learned, mode="json"))


def load_learned(task: Task, folder: Path) -> Task:
    """Load what `save_learned` wrote into the task, and return the task. Raises DataError if the file is missing or
    damaged."""
    task.learned = read_record(folder / file_name(task), task.Learned)
    return task


def file_name(task: Task) -> str:
    """Returns the name of the file that stores what a task learned: `classes.json` for the record `Classes`."""
    return f"{task.Learned.__name__.lower()}.json"


def open_samples(
    config: Config, dataset: SampleDataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    say: Callable[[str], None],
) -> SampleSplit:  # fmt: skip
    """Returns one split of a data set of samples. Damaged samples are marked as bad. In a split other than the training
    split, a sample is also bad if a task rejects the value in its column. Raises DataError if the data set lacks a
    column, or if the share of bad samples is larger than `data.bad_share`."""
    check_columns(config, dataset)
    samples, dropout = dataset.opened(split), config.training.input_dropout
    if config.data.balance and split == "train":
        check_column(dataset, config.data.balance, "data.balance")
        samples = balanced(samples, config.data.balance)
    shares = dropout if isinstance(dropout, dict | str) else dict.fromkeys(config.inputs, dropout)
    labels = dict.fromkeys(name for task in tasks.values() for name in (*task.needs.columns, *task.needs.compared))
    opened_split = sample_split(
        samples, split, collator_of(config, choppers, config.wiring.columns, labels, shares),
        Skipped.of(split, samples.keys, config.data.bad_share, say), tasks=tasks,
        rows=config.training.samples_per_step, budget=config.training.tokens_per_step,
    )  # fmt: skip
    for number, why in samples.damaged():
        opened_split.skipped.note(IsBad(number, why, training=split == "train"))
    # Training samples are checked by `fit` and when they are read.
    for task in tasks.values() if split != "train" else ():
        for column, check in task.needs.columns.items():
            note_bad_values(opened_split, column, check)
    return opened_split


def note_bad_values(split: SampleSplit, column: str, check: Callable[[Any], Any]) -> None:
    """Mark the samples as bad whose value in a column a task rejects."""
    for number, value in split.samples.numbered(column):
        try:
            check(value)
        except DataError as error:
            split.skipped.note(IsBad(number, str(error)))


def read_samples(
    config: Config, samples: Samples, name: str, choppers: Mapping[str, Chopper], say: Callable[[str], None],
    columns: Mapping[str, str] | None = None, labels: Sequence[str] = (),
) -> SampleSplit:  # fmt: skip
    """Returns samples as a split without tasks, for example for prediction. `columns` maps each input to its data
    column; None: the columns of the configuration. `labels` are columns whose values are passed on without decoding.
    Every bad sample is reported to `say` and skipped; any number of samples may be bad."""
    collator = collator_of(config, choppers, columns or config.wiring.columns, labels, {})
    return sample_split(samples, name, collator, Skipped.of(name, samples.keys, say=say))


def collator_of(
    config: Config, choppers: Mapping[str, Chopper], columns: Mapping[str, str], labels: Iterable[str],
    dropout: Mapping[str, float] | str,
) -> Collator:  # fmt: skip
    """Returns the collator that chops samples and packs them into rows of `model.context` tokens. `columns` maps each
    input to its data column. `labels` are columns whose values are passed on without decoding. `dropout` is the share
    of training samples from which each input is dropped, by input, or `"any_number"`."""
    encoder = config.model.options["encoder"]
    inputs = Inputs(
        columns=columns, labels=tuple(labels), encoded=config.wiring.encoded, too_long=config.data.too_long,
        targets=config.wiring.kept, any_number=dropout == "any_number",
        dropout={} if isinstance(dropout, str) else dropout,
    )  # fmt: skip
    return Collator(
        choppers=choppers, inputs=inputs, context=config.model.options["context"], axes=config.wiring.axes,
        encoder_context=encoder.context if encoder else 0, core=config.model.options["core_tokens"],
        in_time=config.data.order == "seconds",
    )  # fmt: skip


def open_split(
    config: Config, dataset: Dataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task], *,
    progress: bool = True, say: Callable[[str], None] = print,
) -> Split:  # fmt: skip
    """Returns one split of samples or of a text corpus. `say` is called with a line for each bad sample. A corpus is
    tokenized once; the ids are stored in the cache folder and cut into windows. A window has the largest number of
    tokens that a task reads, and a step has `tokens_per_step // window` windows. Raises DataError if the data cannot be
    read, or if a text corpus is used with inputs other than exactly one text."""
    if dataset.holds_samples:
        return open_samples(config, dataset, split, choppers, tasks, say)
    return open_corpus(config, dataset, split, choppers, tasks, progress)


def open_corpus(
    config: Config, dataset: Dataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    progress: bool,
) -> StreamSplit:  # fmt: skip
    """Returns one split of a text corpus; see `open_split`."""
    data_choppers = {name: chopper for name, chopper in choppers.items() if name not in config.wiring.made}
    if len(data_choppers) != 1 or next(iter(data_choppers.values())).vocabulary is None:
        inputs = ", ".join(data_choppers)
        raise DataError(f"data set {dataset.name!r} is a text corpus: it needs one input of text, not {inputs}")
    ((name, chopper),) = data_choppers.items()
    if chopper.axes:
        reason = f"whose windows cannot be cut along the axis {chopper.axes[0]!r} of input {name!r}: write `use: text`"
        raise DataError(f"data set {dataset.name!r} is a text corpus, {reason}")
    file = prepare(dataset, split, chopper.vocabulary, prepared_folder(dataset, chopper.vocabulary), progress=progress)
    window = window_of(config, tasks)
    return StreamSplit(
        file=file, name=split, context=window, input=name, separate=config.data.documents == "separate", tasks=tasks,
        rows=config.training.samples_per_step or config.training.tokens_per_step // window,
    )  # fmt: skip


def window_of(config: Config, tasks: Mapping[str, Task]) -> int:
    """Returns the number of tokens in a window of a text corpus."""
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    return max(task.needs.window(context, encoder.context if encoder else 0) for task in tasks.values())


WIDE, CHANNELS = 64, 16
"""The smallest width and number of channels per head with which bfloat16 takes at least a fifth less time than float32
on a CPU with bfloat16 instructions. This rule was fitted to benchmarks/results/precision.jsonl (by
`benchmarks/precision.py`) and tested on the same measurements."""


class Resolved(Record):
    """The precision of a run, and whether torch.compile compiles its model. Stored as the run's `choices.json`."""

    precision: Literal["float32", "bfloat16"]
    compile: bool
    note: str = ""
    """The reason why the model is not compiled although this was requested; else empty."""
    device: str
    """The type of the device for which precision and compilation were decided: `cpu` or `cuda`."""


def read_resolved(folder: Path) -> Resolved | None:
    """Returns the content of a run's `choices.json`; None if the file does not exist. Raises CheckpointError if the
    file is damaged."""
    file = folder / "choices.json"
    try:
        return read_record(file, Resolved) if file.exists() else None
    except DataError as error:
        raise CheckpointError(str(error)) from None


def resolve(training: Training, model: Part, folder: Path | None, device: torch.device) -> Resolved:
    """Returns the precision and the compilation of a run. If `choices.json` in `folder` is for this type of device, its
    content is returned; otherwise a new decision is made and stored in this file. With `folder` None no file is read or
    written.

    Precision `auto` means bfloat16 on a GPU that supports bfloat16, and on a CPU with bfloat16 instructions if the
    model is wide enough to be faster (see WIDE); `fast` means bfloat16 on these GPUs and CPUs for any width. Compile
    `auto` means: on a GPU, for at least 1,000 steps. If a compiler is missing, the model is not compiled, and `note`
    states the reason. Raises CheckpointError if `choices.json` is damaged."""
    stored = read_resolved(folder) if folder else None
    if stored and stored.device == device.type:
        return stored
    uses_half = device.type == "cuda" or training.precision == "fast" or gains(*width_and_channels(model))
    is_explicit = training.precision in ("float32", "bfloat16")
    precision = training.precision if is_explicit else "bfloat16" if uses_half and fast_half(device) else "float32"
    compiled = device.type == "cuda" and training.steps >= 1000 if training.compile == "auto" else training.compile
    obstacle = compiled and missing_compiler(device)
    note = f"not compiled: {obstacle}" if obstacle else ""
    resolved = Resolved(precision=precision, compile=bool(compiled and not obstacle), note=note, device=device.type)
    if folder:
        write_json(folder / "choices.json", resolved.model_dump())
    return resolved


def precision_of(folder: Path, device: torch.device) -> str:
    """Returns the precision for the evaluation of the run in `folder`: the precision of its training, if the run was
    trained on this type of device or if this device computes bfloat16 in hardware; otherwise, and without a
    `choices.json`, float32. Raises CheckpointError if `choices.json` is damaged."""
    stored = read_resolved(folder)
    is_supported = stored is not None and (stored.device == device.type or fast_half(device))
    return stored.precision if is_supported else "float32"


def width_and_channels(model: Part) -> tuple[int, int]:
    """Returns the width of a model and the number of channels of one head."""
    width, heads, block = (model.options[name] for name in ("width", "heads", "block"))
    options: Any = getattr(block, "options", {})
    return width, options.get("head_width") or width // heads


def gains(width: int, channels: int) -> bool:
    """Returns whether a model of this width, with this number of channels per head, is faster in bfloat16 than in
    float32 on a CPU with bfloat16 instructions."""
    return width >= WIDE and channels >= CHANNELS


def build_core(config: Config, axes: Sequence[str], encoder: Encoder | None = None) -> Transformer:
    """Returns the main core if `encoder` is None, else the encoder, to which the main core attends by cross-attention.
    `axes` are the position axes in order, such as `["order", "row", "column"]`. Attention expressions such as
    `causal | from(image)` name inputs and axes; in the core these names are replaced by numbers."""
    options = dict(config.model.options)
    has_cross_attention = options["encoder"] is not None and encoder is None
    if encoder is not None:
        options |= {"depth": encoder.depth, "attention": encoder.attention, "position": encoder.position}
    expressions = [options["attention"]] if isinstance(options["attention"], str) else options["attention"]
    with trusting(config.trust):
        options["attention"] = [parse_graph(text, list(config.inputs), axes, imported) for text in expressions]
        options["position"] = positioned(options["position"], list(config.inputs), axes)
    options["block"] = partial(options["block"], crosses=has_cross_attention)
    core = Part(config.model.target, options).of(Transformer)()
    core.name_inputs(list(config.inputs))
    return core


def build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Model:
    """Returns the model with its initial values. They depend only on the seed of torch's global generator and on the
    names of the parameters. Inputs that share a tokenizer (`same_as`) share one embedder. Raises MemoryError if the
    model is too large for the memory."""
    try:
        return _build_model(config, choppers, tasks)
    except RuntimeError as error:
        if "allocate" in str(error):  # torch has no exception class for it
            raise MemoryError(str(error)) from None
        raise


def _build_model(config: Config, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task]) -> Model:
    width, context, encoder = (config.model.options[name] for name in ("width", "context", "encoder"))
    wiring = config.wiring
    tokenizers: dict[str, nn.Module | str] = {}
    for name, part in config.inputs.items():
        users = wiring.sharing(name)
        longest = max((encoder.context if user in wiring.encoded else context for user in users), default=context)
        shared = wiring.owners[name] != name
        tokenizers[name] = wiring.owners[name] if shared else part(choppers[name], width, longest)
    second = build_core(config, wiring.axes, encoder) if encoder else None
    cores = Cores(build_core(config, wiring.axes), second, list(wiring.encoded))
    modules = {name: tokenizers[owner] for name, owner in wiring.owners.items()}
    heads = {name: head_of(name, task, modules, width) for name, task in tasks.items()}
    scalars = [name for name in wiring.owners if any(name in task.needs.scalars for task in tasks.values())]
    return config.model.of(Model)(tokenizers, cores, heads, scalars, wiring.types)


def build_optimizer(training: Training, model: Model) -> Optimizer:
    """Returns the optimizer of the section `training`, with the optimizer's default learning rate if `learning_rate` is
    null."""
    target = getattr(training.optimizer, "target", training.optimizer)
    rate = target.default_rate if training.learning_rate is None else training.learning_rate
    return training.optimizer(model, rate)


def build_evaluators(settings: Evaluation) -> dict[str, Evaluator]:
    """Returns the evaluators of a run by name, in the order in which they run: `metrics`, the evaluators of the
    YAML, `samples`."""
    return {
        "metrics": Metrics(generated=settings.generated),
        **{name: part() for name, part in settings.also.items()},
        "samples": GeneratedSamples(tokens=settings.sample_tokens, prompt=settings.prompt),
    }
