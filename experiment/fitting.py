"""The choppers, tasks and splits of a configuration: fitted on the training data, or loaded from a run's `assets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..data.base import Dataset
from ..data.collate import Collator, Inputs
from ..data.corpus import StreamSplit, prepare, prepared_folder
from ..data.root import cache_folder
from ..data.samples import SampleDataset, Samples
from ..data.split import SampleSplit, Split, sample_split
from ..files.reading import DataError
from ..files.records import read_record
from ..files.writing import write_json
from ..tasks.base import Task
from ..tasks.judging import TrainingItems
from ..tokenizers.base import Chopper, RunPart, no_run, readable
from ..tokenizers.chopping.contract import check_complete
from .settings.config import Config


def check_columns(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError where an input or a task needs a column that the data set does not have."""
    wanted = {f"inputs.{name}": column for name, column in config.wiring.columns.items()}
    for name, needs in config.wiring.needs.items():
        wanted |= {f"tasks.{name}.target": column for column in needs.columns}
        wanted |= {f"tasks.{name}.metrics": column for column in needs.compared}
    for path, column in wanted.items():
        if column not in dataset.columns:
            mapping = f"{{{path.split('.')[1]}: {dataset.columns[0]}}}"
            hint = f" (data.columns says which is read, as {mapping})" if path.startswith("inputs") else ""
            if path.startswith("inputs") and config.inputs[path.split(".")[1]].target.Chopper.kind == "file":
                hint += "; several channels are one column, whose values are files (.npy, .csv) or lists of numbers"
            possible = ", ".join(dataset.columns) + hint
            raise DataError(f"{path}: dataset {dataset.name!r} has no column {column!r}; possible: {possible}")


def check_present(config: Config, dataset: SampleDataset) -> None:
    """Raises DataError for an input whose column is empty in every sample of the training split."""
    samples = dataset.opened("train")
    for name, column in config.wiring.columns.items():
        if column in dataset.columns and next(iter(samples.column(column)), None) is None:
            others = dataset.others()
            raise DataError(
                f"inputs.{name}: none of the {len(samples)} training samples has anything in column {column!r}"
                + (f"; dataset.columns does not name {', '.join(others)}, which they have" if others else "")
            )


def build_choppers(
    config: Config, assets: Path, dataset: Dataset | None = None, open_run: Callable[..., RunPart] = no_run
) -> dict[str, Chopper]:
    """Every input's chopper, with what it learned from the training data (a vocabulary, a mean and a std): loaded from
    `assets/<input>/`, or fitted on the dataset and saved there.

    Without a dataset nothing is fitted: a run works without its data. `open_run` opens a trained run that is a part of
    this one. Raises DataError where an input has no column, no sample of the training split has a value in it, or a
    file is damaged, ValueError naming the input whose chopper cannot be fitted.
    """
    if dataset is not None and dataset.holds_samples and not assets.exists():
        check_columns(config, dataset)
        check_present(config, dataset)
    columns, made = config.wiring.columns, {}
    parts = {"open_run": open_run, "trust": config.trust, "cache": cache_folder()}
    roles = {name: replace(role, **parts) for name, role in config.wiring.roles.items()}
    for name, part in config.inputs.items():
        preprocessor, owner = part.build(part.target.Chopper), config.wiring.owners[name]
        check_complete(name, preprocessor)
        if dataset is not None and not (assets / owner).exists():
            read = [columns[each] for each in config.wiring.sharing(owner)]
            items = partial(dataset.training_items, read, preprocessor.fits_on)
            try:
                preprocessor.fit(items, roles[name]).save(assets / owner)
            except ValueError as error:
                raise ValueError(f"inputs.{owner}: {error}") from error
        made[name] = preprocessor.placed(preprocessor.load(assets / owner, roles[name]))
    return made


def ready_judges(
    config: Config, owner: str, task: Task, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None
) -> None:
    """Get the judges of the task `owner` ready: from `assets/<judge>/`, or, where the `dataset` is given, for the first
    time, and keep them there. Raises DataError where a judge compares with a data column and there is none, and where
    it cannot judge such items."""
    column = config.wiring.columns.get(task.target, "")
    for name, judge in task.judges.items():
        if (assets / name).exists() or dataset is None:
            judge.load(assets / name, open_run)
            continue
        if judge.columns and not dataset.holds_samples:
            told = f"it compares with column {judge.columns[0]!r}, and dataset {dataset.name!r} has texts alone"
            raise DataError(f"tasks.{owner}.metrics.{name}: {told}")
        chopper = task.choppers[task.target]
        if chopper.vocabulary is None:
            told = f"the input {task.target!r} has no ids, so that no item of it can be generated and judged"
            raise DataError(f"tasks.{owner}.metrics.{name}: {told}; of pictures `use: image_ids` has some")

        def items(chopper: Chopper = chopper, encoded: bool = judge.encoded) -> Iterator[Any]:
            found = readable(dataset.training_items([column]), chopper.decode, "item", "to judge by")
            return map(chopper.vocabulary.encode, found) if encoded else found

        def values(name: str) -> Iterable[Any]:
            return dataset.opened("train").column(name)

        try:
            judge.fit(open_run, TrainingItems(items, values, chopper.vocabulary))
        except ValueError as error:
            raise DataError(f"tasks.{owner}.metrics.{name}: {error}") from error
        judge.save(assets / name)


class TrainingData:
    """The training samples, one column at a time, as `Task.fit` gets them. `say` prints a line; `columns` maps inputs
    to data columns."""

    def __init__(self, samples: Samples, say: Callable[[str], None], columns: Mapping[str, str] | None = None):
        self.samples, self.say, self.columns = samples, say, columns or {}

    def __len__(self) -> int:
        return len(self.samples)

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column in the order of the samples, without samples that lack it."""
        return self.samples.column(name)

    def items(self, name: str) -> Iterator[Any]:
        """The raw values of one input."""
        return self.samples.column(self.columns.get(name, name))


def choppers_and_tasks(
    config: Config, assets: Path, open_run: Callable[..., RunPart], dataset: Dataset | None = None,
    say: Callable[[str], None] = print,
) -> tuple[dict[str, Chopper], dict[str, Task]]:  # fmt: skip
    """Choppers and tasks by name, loaded from `assets`, or fitted on the dataset and saved there. `open_run` opens a
    trained run that is a part of this one. Raises DataError for a file that is missing or damaged, and for data that
    cannot be fitted on."""
    choppers = build_choppers(config, assets, dataset, open_run)
    return choppers, build_tasks(config, choppers, assets, dataset, say, open_run)


def build_tasks(
    config: Config, choppers: Mapping[str, Chopper], assets: Path | None = None, dataset: Dataset | None = None,
    say: Callable[[str], None] = print, open_run: Callable[..., RunPart] = no_run,
) -> dict[str, Task]:  # fmt: skip
    """The tasks by name. What a task learned is loaded from `assets/task-<name>/`, or fitted on the dataset's training
    split and saved there. Raises DataError for a file that is missing or damaged, and for data that a task cannot be
    fitted on."""
    made = {}
    for name, planned in config.wiring.tasks.items():
        task = made[name] = deepcopy(planned)
        task.choppers = choppers
        check_texts(name, task)
        check_through(name, task, made)
        folder = assets / f"task-{name}" if assets and task.Learned else None
        if folder and folder.exists():
            load_learned(task, folder)
        elif folder and dataset is not None and dataset.holds_samples:
            task.learned = task.fit(TrainingData(dataset.opened("train"), say, config.wiring.columns))
            save_learned(task, folder)
        elif folder and dataset is not None:
            column = next(iter(task.needs.columns), task.target)
            raise DataError(
                f"tasks.{name}: it needs a data set with the column {column!r}, and {dataset.name!r} is a text corpus"
            )
        elif folder and config.data.dataset is not None:
            raise DataError(
                f"tasks.{name}: {folder} is missing. It holds what the task learned of its data: copy complete runs. A "
                "run of an earlier version with `bounded` must be trained again"
            )
        if assets:
            ready_judges(config, name, task, assets / f"task-{name}", open_run, dataset)
    return made


def check_texts(name: str, task: Task) -> None:
    """Raises DataError for metrics of texts where what the task predicts is no text."""
    if task.texts and task.target in task.choppers and task.choppers[task.target].kind != "text":
        told = f"tasks.{name}.metrics: {', '.join(task.texts)} compare texts, and {task.target!r} is none"
        raise DataError(f"{told}; it can be judged by name: {{accepted: {{use: accepted_by, run: ...}}}}")


def check_through(name: str, task: Task, made: Mapping[str, Task]) -> None:
    """Raises DataError where a draft is refined through an input that none of the tasks before it refines, or of which
    nothing tells how many tokens it has."""
    before = {each.target: (other, each) for other, each in reversed(made.items()) if each.needs.refines}
    before.pop(task.target, None)
    for target in task.refining.through if task.needs.refines else ():
        if target not in before:
            possible = f"possible: {', '.join(reversed(before))}" if before else "there is none"
            raise DataError(f"tasks.{name}.refining.through: no task before it refines {target!r}; {possible}")
        other, first = before[target]
        if not (first.vocabulary.length or first.refining.tokens):
            told = f"must be given, since {name!r} is refined through {target!r}, which may have any number"
            raise DataError(f"tasks.{other}.refining.tokens: {told}")


def save_learned(task: Task, folder: Path) -> None:
    """Write what a task has learned, if it has learned something: `folder/classes.json` holds `["cat", "dog"]`; and
    what its judges need."""
    for name, judge in task.judges.items():
        judge.save(folder / name)
    if task.learned is not None:
        write_json(folder / file_name(task), TypeAdapter(task.Learned).dump_python(task.learned, mode="json"))


def load_learned(task: Task, folder: Path) -> Task:
    """The task, given what `save_learned` wrote. Raises DataError for a file that is missing or damaged."""
    task.learned = read_record(folder / file_name(task), task.Learned)
    return task


def file_name(task: Task) -> str:
    """The file name of what a task has learned: `classes.json` for the record `Classes`."""
    return f"{task.Learned.__name__.lower()}.json"


def open_samples(
    config: Config, dataset: SampleDataset, split: str, choppers: Mapping[str, Chopper], tasks: Mapping[str, Task],
    say: Callable[[str], None],
) -> SampleSplit:  # fmt: skip
    """One split of a data set. Samples known to be damaged are noted as bad, and outside the training split also those
    whose value in a task's column the task refuses. Raises DataError for a column that the data set lacks, and for more
    bad samples than `data.bad_share` allows."""
    check_columns(config, dataset)
    samples, dropout = dataset.opened(split), config.training.input_dropout
    each = dropout if isinstance(dropout, dict | str) else dict.fromkeys(config.inputs, dropout)
    labels = dict.fromkeys(name for task in tasks.values() for name in (*task.needs.columns, *task.needs.compared))
    opened = sample_split(
        samples, split, collator_of(config, choppers, config.wiring.columns, labels, each), tasks=tasks, say=say,
        rows=config.training.samples_per_step, budget=config.training.tokens_per_step, bad_share=config.data.bad_share,
    )  # fmt: skip
    for number, why in samples.damaged():
        opened.unread.bad.note(number, DataError(why), training=split == "train")
    for task in tasks.values() if split != "train" else ():  # training ones are checked by `fit` and when read
        for column, check in task.needs.columns.items():
            for number, value in samples.numbered(column):
                try:
                    check(value)
                except DataError as error:
                    opened.unread.bad.note(number, error)
    return opened


def read_samples(
    config: Config, samples: Samples, name: str, choppers: Mapping[str, Chopper], say: Callable[[str], None],
    columns: Mapping[str, str] | None = None, labels: Sequence[str] = (),
) -> SampleSplit:  # fmt: skip
    """Samples as a split without tasks, for reading alone. `columns` maps each input to its column (None: as the
    configuration has it), `labels` are the columns handed on undecoded; bad samples are reported through `say` and left
    out, however many."""
    collator = collator_of(config, choppers, columns or config.wiring.columns, labels, {})
    return sample_split(samples, name, collator, bad_share=1.0, say=say)


def collator_of(
    config: Config, choppers: Mapping[str, Chopper], columns: Mapping[str, str], labels: Iterable[str],
    dropout: Mapping[str, float] | str,
) -> Collator:  # fmt: skip
    """The collator that chops this configuration's samples and packs them into rows of `model.context` slots. `columns`
    maps each input to its column, `labels` are the columns handed on undecoded, `dropout` says how often each input is
    withheld in training, or `any_number`."""
    encoder, every = config.model.options["encoder"], config.wiring.needs.values()
    inputs = Inputs(
        columns=columns, labels=tuple(labels), encoded=config.wiring.encoded, too_long=config.data.too_long,
        targets={name for each in every if not each.refines for name in (*each.inputs, *each.judged_at)},
        dropout={} if isinstance(dropout, str) else dropout, any_number=dropout == "any_number",
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
    """One split: of samples (`say` gets a line for each bad one), or of a text corpus, tokenized once into the cache
    folder and cut into windows of the longest number of tokens that a task reads, of which `tokens_per_step` makes
    `tokens_per_step // window` rows. Raises DataError for data that cannot be read, and for a text corpus where the
    configuration has any input besides one text."""
    if dataset.holds_samples:
        return open_samples(config, dataset, split, choppers, tasks, say)
    read = {name: chopper for name, chopper in choppers.items() if name not in config.wiring.made}
    if len(read) != 1 or next(iter(read.values())).vocabulary is None:
        raise DataError(
            f"data set {dataset.name!r} is a text corpus: it feeds one input of text, not {', '.join(read)}"
        )
    ((name, chopper),) = read.items()
    if chopper.axes:
        raise DataError(
            f"data set {dataset.name!r} is a text corpus, whose windows would cut what stands on the axis "
            f"{chopper.axes[0]!r} of input {name!r}: it feeds `use: text`"
        )
    file = prepare(dataset, split, chopper.vocabulary, prepared_folder(dataset, chopper.vocabulary), progress=progress)
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    window = max(task.needs.window(context, encoder.context if encoder else 0) for task in tasks.values())
    return StreamSplit(
        file=file, name=split, context=window, input=name, separate=config.data.documents == "separate", tasks=tasks,
        rows=config.training.samples_per_step or config.training.tokens_per_step // window,
    )  # fmt: skip
