"""Checks before the first step of training, and the summary of the data that is printed before this step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from ..data.collate import Inputs
from ..data.processes import Processes
from ..data.samples import Samples
from ..data.split import Split
from ..inference.evaluation import directions
from ..inference.evaluator import Evaluator
from ..models.excerpt import PROBED
from ..models.leaks import LeakError, unproven_classes, unused_inputs
from ..models.model import Model
from ..models.probe import probe
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..tokenizers.media.clock import clock_of


def check_best(
    best: str, tasks: Mapping[str, Task], generated: int, evaluators: Sequence[Evaluator] = (), corpus: bool = False,
    key: str = "checkpoints.best",
) -> None:  # fmt: skip
    """Raises ValueError if `best`, the value of the setting `key`, is not a metric of the validation split or of the
    `evaluators`. If `generated` (`evaluation.generated`) is 0, metrics of generated items are not possible. For a text
    corpus (`corpus`), metrics that compare generated texts with those of samples are not possible."""
    possible = directions(tasks, "val", evaluators)
    for name, task in tasks.items() if not generated or corpus else ():
        prefix = f"val/{name}/" if len(tasks) > 1 else "val/"
        for metric_name, metric in task.metrics.items() if task.needs.makes_items else ():
            if (not generated and metric.measured_on != "samples") or (corpus and metric.of_texts):
                possible.pop(prefix + metric_name, None)
    if best not in possible:
        raise ValueError(f"{key} is {best!r}; possible: {', '.join(possible)}")


def check_mixup(tasks: Mapping[str, Task], mixup: bool) -> None:
    """Raises ValueError if samples are mixed (`mixup`) and the loss of a task compares the samples of a batch with each
    other (`Needs.whole_batch`)."""
    for name, task in tasks.items():
        if task.needs.whole_batch and mixup:
            raise ValueError(
                f"tasks.{name}: its loss compares the samples of a batch with each other, which training.mixup mixes; "
                "remove training.mixup"
            )


def check_balance(balance: str | None, tasks: Mapping[str, Task]) -> None:
    """Raises ValueError if the classes of a task are both drawn with equal probability (`data.balance`) and weighted
    (`class_weights`)."""
    for name, task in tasks.items():
        if balance in task.needs.columns and getattr(task, "class_weights", None):
            raise ValueError(
                f"data.balance and tasks.{name}.class_weights both balance the classes in column {balance!r}; remove "
                "one"
            )


def check_leaks(model: Model, split: Split, seed: int, processes: Processes) -> list[str]:
    """Raises LeakError if, in the first batch, a slot can read its own target through the layers of attention (a slot
    is a position of a token in a row), or if a user-defined part of the model or a block without attention reads tokens
    that the attention graph excludes. Later batches are checked when they are planned (`Model.plan`); the parts are
    probed only here, in the process of rank 0. Returns a line for each part that cannot be probed."""
    model.leak_check.check(split.batch(split.plan(seed, 0)), *model.graphs)
    if not unproven_classes(model, chain(*model.graphs)):
        return []
    return probed(model, split, seed, processes)


def probed(model: Model, split: Split, seed: int, processes: Processes) -> list[str]:
    """Probes the user-defined parts in the process of rank 0. Every process must call this function; see
    `check_leaks`."""
    error, lines = None, []
    if processes.is_first:
        try:
            lines = probe(model, split.batch(split.plan(seed, 0)[:PROBED]))
        except LeakError as leak:
            error = leak
    processes.agree([], error)
    return lines


def line_about_dropout(inputs: Inputs) -> str:
    """Returns a line about the shares of training samples from which each input is dropped."""
    shares = ", ".join(f"{name} {share:.1%}" for name, share in inputs.dropped.items())
    setting = "any_number" if inputs.any_number else ", ".join(f"{inputs.dropout[name]:g}" for name in inputs.dropped)
    note = "; one input of each sample is kept" if inputs.one_stays and not inputs.any_number else ""
    return f"share of training samples without an input: {shares} (input_dropout {setting}{note})"


def lines_about_inputs(
    split: Split, tasks: Mapping[str, Task], columns: Mapping[str, str], encoded: Collection[str]
) -> list[str]:
    """Returns lines about facts that the configuration does not show: the share of training samples from which each
    input is dropped, and the inputs that read the target column of a task. `columns` maps inputs to data columns;
    `encoded` contains the inputs that the encoder reads.

        tasks.text: input 'text' reads the target column 'text' (target shifted)
    """
    lines = []
    if split.inputs.dropped:
        lines.append(line_about_dropout(split.inputs))
    for name, task in tasks.items():
        needs = task.needs
        targets = [*needs.columns] or [columns[input] for input in needs.inputs if input not in needs.makes]
        hidden = {*columns} - {*encoded} if encoded and not needs.generates else set()  # only a decoder reads them
        for reader in [input for input, column in columns.items() if column in targets and input not in hidden]:
            state = (reader in needs.inputs and needs.hides) or "not hidden"
            lines.append(f"tasks.{name}: input {reader!r} reads the target column {columns[reader]!r} (target {state})")
    return lines


def lines_about_unused_inputs(model: Model, split: Split, names: Sequence[str], seed: int) -> list[str]:
    """Returns a line for each of the inputs `names` that no prediction of the first batch depends on. An example is an
    instruction that follows all actions, with the attention `causal`. With only one input, returns an empty list.

        inputs.mission: no prediction depends on this input
    """
    unused = unused_inputs(split.batch(split.plan(seed, 0)), model.graphs[0]) if len(names) > 1 else []
    return [f"inputs.{names[number - 1]}: no prediction depends on this input" for number in unused]


INSPECTED = 16
"""The number of training samples that are inspected. They are spread evenly over the split."""
COMPARED_VAL, COMPARED_TRAIN = 64, 1000
"""The numbers of validation and of training samples that are compared with each other to find overlaps."""


def data_lines(
    name: str, splits: Mapping[str, Split], columns: Mapping[str, str], tasks: Mapping[str, Task], balance: str | None
) -> list[str]:
    """Returns lines about the splits `train` and `val` of the data set `name`: their sizes, a summary of each input and
    of each task's target column, and warnings about classes of very different sizes and about overlaps. `columns` maps
    inputs to data columns. `balance` is the column whose classes are drawn with equal probability (`data.balance`)."""
    train, val = splits["train"], splits["val"]
    if not train.answerable or not val.answerable:
        return list(corpus_lines(name, train, val))
    return sample_lines(name, train, val, columns, tasks, balance)


def sample_lines(
    name: str, train: Split, val: Split, columns: Mapping[str, str], tasks: Mapping[str, Task], balance: str | None
) -> list[str]:
    """Returns `data_lines` of a data set of samples."""
    lines = [f"data: {name}, {sizes(train, 'train')}; {sizes(val, 'validate')}"]
    rows = inspected(train.samples)
    for input_name, chopper in train.choppers.items():
        raws = [value for row in rows if (value := row.get(columns[input_name])) is not None]
        lines.append(f"{input_name}: {input_line(chopper, raws, len(rows))}")
    for task_name, task in tasks.items():
        for column in list(task.needs.columns)[:1]:
            values = {"train": list(train.samples.column(column)), "validate": list(val.samples.column(column))}
            summaries = {purpose: summary_of(task, some) for purpose, some in values.items()}
            line = f"{column}: {'; '.join(f'{text} to {purpose}' for purpose, text in summaries.items())}"
            if all(summaries.values()) and line not in lines:  # two tasks can predict one column
                lines.append(line)
            if not balance and (text := task.imbalance(values["train"])):
                advice = f"consider tasks.{task_name}.class_weights: balanced, or data.balance: {column}"
                lines.append(f"tasks.{task_name}: {text}; {advice}")
            if text := task.rare(values["validate"]):
                lines.append(f"tasks.{task_name}: val has {text}; figures of these classes depend on chance")
    has_numbers = any(chopper.numbers for chopper in train.choppers.values())
    return lines + list(overlap_lines(train, val, columns) if has_numbers else ())


def corpus_lines(name: str, train: Split, val: Split) -> Iterator[str]:
    """Yields the line about a text corpus."""
    parts = [f"{len(split.file.ids):,} tokens from {split.file.bytes:,} bytes" for split in (train, val)]
    yield f"data: {name}, {parts[0]} to train; {parts[1]} to validate"


def sizes(split: Split, purpose: str) -> str:
    """Returns the number of samples of a split as text; for a mixture also the number from each of its data sets:
    `108 samples to train (80 digits, 28 words)`."""
    sources = ", ".join(f"{len(numbers):,} {name}" for name, numbers in split.sources.items())
    return f"{len(split.samples):,} samples to {purpose}{f' ({sources})' if sources else ''}"


def inspected(samples: Samples) -> list[Mapping[str, Any]]:
    """Returns at most INSPECTED samples, spread evenly over all samples. Samples that cannot be read are omitted."""
    rows = []
    for number in np.linspace(0, len(samples) - 1, min(INSPECTED, len(samples))).astype(int).tolist():
        try:
            rows.append(samples[number])
        except (ValueError, OSError):
            continue
    return rows


def input_line(chopper: Chopper, raws: Sequence[Any], count: int) -> str:
    """Returns a summary of an input: its raw values, and the tokens into which they are chopped. `raws` are the raw
    values; samples without this input have none. `count` is the number of inspected samples."""
    if not raws:
        return f"missing in all {count} inspected samples"
    try:
        summary = chopper.summary(raws)
    except (ValueError, OSError, RuntimeError) as error:
        return f"none of {len(raws)} inspected samples can be read; first error: {error}"
    return summary + f" (in {len(raws)} of {count} inspected samples)" * (len(raws) < count)


def summary_of(task: Task, values: Sequence[Any]) -> str:
    """Returns a task's summary of the values in its target column. Empty if the task has no summary, or if a value
    cannot be read."""
    try:
        return task.summary(values)
    except (ValueError, OSError):
        return ""


# ---------------------------------------------------------------------------------------------------------- overlaps


def overlap_lines(train: Split, val: Split, columns: Mapping[str, str]) -> Iterator[str]:
    """Yields a warning if many validation samples contain measurements that training samples also contain, for all
    sensor inputs of the sample. This happens if overlapping windows of one recording are distributed over the splits at
    random."""
    val_numbers = spread_numbers(len(val.samples), COMPARED_VAL)
    train_numbers = spread_numbers(len(train.samples), COMPARED_TRAIN)
    common: dict[str, set[int]] = {}
    distinct: set[int] = set()
    for name in [name for name, chopper in train.choppers.items() if chopper.numbers]:
        chopper = train.choppers[name]
        val_runs = [runs_in(chopper, val.samples, columns[name], number) for number in val_numbers]
        owners: dict[bytes, list[int]] = {}
        for index, runs in enumerate(val_runs):
            for run in runs:
                owners.setdefault(run, []).append(index)
        common[name] = {
            index
            for number in train_numbers
            for run in runs_in(chopper, train.samples, columns[name], number) & owners.keys()
            for index in owners[run]
        }
        distinct |= {index for index, runs in enumerate(val_runs) if runs} - common[name]
    shared = set().union(*common.values()) - distinct
    if 10 * len(shared) > max(len(val_numbers) * len(train_numbers) / len(train.samples), 10):
        least = "" if len(train_numbers) == len(train.samples) else "at least "
        yield (
            f"{', '.join(name for name in common if common[name] & shared)}: {least}{len(shared)} of "
            f"{len(val_numbers)} validation samples share measurements with training samples, so the validation "
            "metrics will be too optimistic. Use separate recordings for validation (data.dataset.val)"
        )


def spread_numbers(count: int, most: int) -> list[int]:
    """Returns at most `most` of the integers from 0 to `count` - 1, spread evenly."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def runs_in(chopper: Chopper, samples: Samples, column: str, number: int) -> set[bytes]:
    """Returns all runs (sequences of consecutive measurements) of sample `number` in a column, as bytes. Constant runs
    are omitted. A run has a quarter of the sample's measurements, but at least 4 and at most 16. Empty if the sample
    cannot be read."""
    try:
        raw = samples.row(number, (column,)).get(column)
        values = None if raw is None else clock_of(chopper.decode(raw), 1.0)[0].float().numpy()
    except (ValueError, OSError, RuntimeError):
        return set()
    count = 0 if values is None else len(values)
    size = min(max(count // 4, 4), 16)
    runs = (values[first : first + size] for first in range(count - size + 1))
    return {run.tobytes() for run in runs if (run != run[0]).any()}
