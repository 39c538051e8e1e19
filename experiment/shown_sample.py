"""The sample that a page or picture shows, and the model that reads it: of a configuration, or of a run with what the
trained model computes."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.sampler import SampleIndex
from ..data.split import SampleSplit, Split
from ..files.errors import RunError
from ..inference.predict import stream_predictions
from ..inference.requests import Sample
from ..inference.shown_answers import short_text, value_text
from ..inference.tracing import Trace
from ..inference.trained import TrainedModel
from ..models.batch import Batch
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from .build import build_model, choppers_and_tasks, open_split
from .run import Run, open_part, traced_index
from .run_names import name_of
from .settings.config import Config


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a page shows. None: the first possible value."""

    split: str = "val"
    sample: str | None = None
    """The key or the number of a sample, or of a window of a corpus."""
    other: str | None = None
    """The key or the number of the sample whose inputs replace those of the shown one."""
    inputs: Sample | None = None
    """A sample that is not from the data."""
    task: str | None = None
    layers: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a page is about: a sample of a split, and the model that reads it."""

    title: str
    config: Config
    split: Split
    index: SampleIndex
    model: Model
    choppers: Mapping[str, Chopper]
    tasks: Mapping[str, Task]
    batch: Batch
    """The sample with its targets."""
    trace: Trace | None = None
    """What the trained model computes; None for a configuration without a run."""
    run: Run | None = None
    generated: Collection[str] = ()
    """The inputs of the sample that the model has generated."""

    @property
    def trained(self) -> TrainedModel:
        """The model with the tasks that are shown."""
        return TrainedModel(model=self.model, tasks=self.tasks)

    @property
    def key(self) -> str:
        """The number of the sample or window, from 1, and the key of the sample: `sample 7 of 1,000 (key: a.png)`."""
        numbers = sorted(index.number for index in self.split.all())
        of = f"{numbers.index(self.index.number) + 1:,} of {len(numbers):,}"
        samples = self.split.samples
        if samples is None:
            return f"window {of}"
        key = samples.keys[self.index.number]
        return key if len(numbers) == 1 else f"sample {of} (key: {key})"

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The decoded inputs of the sample; empty for a window of a corpus."""
        return self.split.item(self.index.number)[0]

    @property
    def labels(self) -> Mapping[str, Any]:
        """The labels of the sample by column."""
        return self.split.item(self.index.number)[1]


def open_untrained(config: Config) -> tuple[dict[str, Chopper], dict[str, Task], Split]:
    """Returns (choppers, tasks, split) for a configuration without a run; `split` is the validation split. Choppers and
    tasks are fitted in a temporary folder. Raises DataError if the data cannot be read."""
    dataset, open_run = config.dataset(), partial(open_part, trust=config.nested)
    with tempfile.TemporaryDirectory() as folder:
        choppers, tasks = choppers_and_tasks(config, Path(folder), open_run, dataset)
    return choppers, tasks, open_split(config, dataset, "val", choppers, tasks)


def untrained(config: Config) -> Shown:
    """Returns the first validation sample of a configuration, for a page without a trained model."""
    choppers, tasks, split = open_untrained(config)
    index = split.all()[0]
    return Shown(
        title=f"The tokens and the attention graph of {config.path.name}", config=config, split=split, index=index,
        tasks=tasks, model=build_model(config, choppers, tasks), choppers=choppers, batch=split.batch([index]),
    )  # fmt: skip


def trained(run: Run, choice: Choice) -> Shown:
    """Returns a sample with everything that the trained model computes for it. Raises RunError for a run without its
    data, for an unknown sample, task or layer, DataError if the sample is bad or too long."""
    generated: Mapping[str, str] = {}
    if choice.inputs is not None:
        generated = generated_texts(run, choice.inputs)
        split: Split = run.as_split({**choice.inputs, **generated}, for_prediction=False)
    elif not run.has_dataset:
        raise RunError(f"{run.folder} was imported without data; name a sample: --input NAME=VALUE")
    else:
        split = run.open(choice.split)
    index = index_of(split, choice.sample)
    trace = traced_index(run, split, index, run.tasks, choice.task)
    return Shown(
        title=f"Attention and predictions of {name_of(run.folder)}", config=run.config, split=split, index=index,
        run=run, generated=generated,
        model=run.model, choppers=run.choppers, tasks=run.tasks, batch=trace.batch, trace=trace,
    )  # fmt: skip


def generated_texts(run: Run, inputs: Sample) -> dict[str, str]:
    """Returns the texts that the tasks of a run generate for a sample, by the input that contains them. Without them,
    the page of a sample of the user could not show what the model reads while it writes."""
    names = {name: task.target for name, task in run.tasks.items() if task.needs.generates
             and task.target not in inputs and run.choppers[task.target].kind == "text"}  # fmt: skip
    if not names:
        return {}
    split = run.as_split(inputs)
    answers = predictions(run, split, split.all()[0])
    texts = {target: short_text(answers[name]) for name, target in names.items() if name in answers}
    return {target: text for target, text in texts.items() if text}


def index_of(split: Split, name: str | None) -> SampleIndex:
    """Returns the index of the sample with this key or number (None: the first readable one). Raises RunError if there
    is none."""
    indices = sorted(split.all(), key=lambda index: index.number)
    keys = split.keys
    if name is None:
        return indices[0]
    if name in keys:
        return indices[keys.index(name)]
    if name.isdecimal() and len(name) < 19 and 1 <= int(name) <= len(indices):
        return indices[int(name) - 1]
    raise RunError(f"{split.name} has no sample {name!r}; possible: a key, or a number from 1 to {len(indices):,}")


def predictions(run: Run, split: SampleSplit, index: SampleIndex) -> dict[str, dict[str, Any]]:
    """Returns the answer of each task for one sample, as `chopmix predict` gives it."""
    with run.arithmetic():
        answers = next(stream_predictions(run, split, [[index]]))[index.number]
    return {} if "error" in answers else {name: answer for name, answer in answers.items() if "error" not in answer}


def true_value(task: Task, shown: Shown) -> Any:
    """Returns the true value of a task in the sample in the form of an answer; None if it is unknown or not a text or
    label."""
    for column in task.needs.columns:
        if (value := shown.labels.get(column)) is not None:
            return task.as_answer(value)
    item = shown.inputs.get(task.target)
    return item if isinstance(item, str) else None


def true_text(task: Task, shown: Shown) -> str:
    """Returns the true value of a task in the sample as text; empty if it is unknown or not a text or label."""
    value = true_value(task, shown)
    return value if isinstance(value, str) else "" if value is None else value_text(value)


def targets_of(shown: Shown) -> int:
    """Returns the number of targets of the sample."""
    return sum(targets.count for targets in shown.batch.targets.values())


def counted(number: int, name: str) -> str:
    """Returns a number with a noun: `1 token`, `2 tokens`."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"
