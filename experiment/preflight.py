"""Checks before the first step, and the lines that a run prints before it: what was read, and what it becomes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.samples import Samples
from ..data.split import Split
from ..inference.evaluation import directions, generates
from ..inference.evaluator import Evaluator
from ..models.leaks import unused_inputs
from ..models.model import Model
from ..tasks.base import Task
from ..tokenizers.base import Chopper
from ..tokenizers.media.clock import clock_of


def check_best(
    best: str, tasks: Mapping[str, Task], generated: int, evaluators: Sequence[Evaluator] = (), corpus: bool = False
) -> None:
    """Raises ValueError where `best` (`checkpoints.best`) is no metric of the validation split, nor of the evaluators.
    Metrics of generated items do not count with `generated` 0 (`evaluation.generated`), nor
    those that compare texts with the texts of samples where the data are a `corpus`."""
    possible = list(directions(tasks, "val", evaluators))
    for name, task in tasks.items() if not generated or corpus else ():
        prefix = f"val/{name}/" if len(tasks) > 1 else "val/"
        for key, metric in task.metrics.items() if generates(task) else ():
            if (not generated and metric.measured_on != "samples") or (corpus and metric.of_texts):
                possible.remove(prefix + key)
    if best not in possible:
        raise ValueError(f"checkpoints.best is {best!r}; possible: {', '.join(possible)}")


def check_mixup(tasks: Mapping[str, Task], mixup: bool) -> None:
    """Raises ValueError if samples are mixed (`training.mixup`) and the loss of a task compares them with each other
    (`Needs.whole_batch`)."""
    for name, task in tasks.items():
        if task.needs.whole_batch and mixup:
            raise ValueError(
                f"tasks.{name}: its loss compares the samples of a batch with each other, which training.mixup mixes; "
                "remove training.mixup"
            )


def check_leaks(model: Model, split: Split, seed: int) -> None:
    """Raises LeakError where, in the first batch, the slot that predicts a target can read it through the layers of
    attention; every later batch is checked when it is planned (`Model.plan`)."""
    model.leak_check.check(split.batch(split.plan(seed, 0)), *model.graphs)


def lines_about_inputs(
    split: Split, tasks: Mapping[str, Task], columns: Mapping[str, str], encoded: Collection[str]
) -> list[str]:
    """Lines for the user on what a configuration does not show: how often each input is withheld, and which inputs read
    the very column that a task predicts. `columns` maps inputs to data columns, `encoded` are the encoder's inputs.

        tasks.text: the answer stands in column 'text', which text reads: shifted
    """
    lines = []
    if withheld := split.inputs.dropped:
        told = ", ".join(f"{name} from {share:.1%}" for name, share in withheld.items())
        own = split.inputs.dropout
        chances = "any_number" if split.inputs.any_number else ", ".join(f"{own[name]:g}" for name in withheld)
        some = split.inputs.one_stays and not split.inputs.any_number
        kept = ", before one of a sample's inputs is kept" if some else ""
        lines.append(f"withheld of the samples while training: {told} (input_dropout {chances}{kept})")
    for name, task in tasks.items():
        needs = task.needs
        answers = [*needs.columns] or [columns[each] for each in needs.inputs if each not in needs.makes]
        hidden = {*columns} - {*encoded} if encoded and not needs.generates else set()  # only a decoder reads them
        for reader in [each for each, column in columns.items() if column in answers and each not in hidden]:
            how = needs.hides if reader in needs.inputs else "reconstructed"
            lines.append(f"tasks.{name}: the answer stands in column {columns[reader]!r}, which {reader} reads: {how}")
    return lines


def lines_about_unused_inputs(model: Model, split: Split, names: Sequence[str], seed: int) -> list[str]:
    """A line for each of the inputs `names` that nothing predicted in the first batch depends on, such as an
    instruction that comes after all actions, with `causal`.

        inputs.mission: nothing that is predicted can read it
    """
    found = unused_inputs(split.batch(split.plan(seed, 0)), model.graphs[0]) if len(names) > 1 else []
    return [f"inputs.{names[number - 1]}: nothing that is predicted can read it" for number in found]


LOOKED_AT = 16
"""How many samples of the training split are looked at, spread over it."""
WINDOWS, COMPARED = 64, 1000
"""How many validation samples are compared with how many training samples, to find out whether they overlap."""


def data_lines(
    name: str, splits: Mapping[str, Split], columns: Mapping[str, str], tasks: Mapping[str, Task]
) -> list[str]:
    """The lines about the splits `train` and `val` of the data set `name`. `columns` maps inputs to data columns."""
    train, val = splits["train"], splits["val"]
    if train.samples is None or val.samples is None:
        return list(corpus_lines(name, train, val))
    lines = [f"data: {name}, {sizes(train, 'train')}; {sizes(val, 'validate')}"]
    rows = looked_at(train.samples)
    for input_name, chopper in train.choppers.items():
        raws = [value for row in rows if (value := row.get(columns[input_name])) is not None]
        lines.append(f"{input_name}: {input_line(chopper, raws, len(rows))}")
    targets = {column: task for task in tasks.values() for column in list(task.needs.columns)[:1]}
    for column, task in targets.items():
        counted = {
            each: summary_of(task, split.samples, column) for each, split in (("train", train), ("validate", val))
        }
        if all(counted.values()):
            lines.append(f"{column}: {'; '.join(f'{what} to {purpose}' for purpose, what in counted.items())}")
    return lines + list(overlap_lines(train, val, columns))


def corpus_lines(name: str, train: Split, val: Split) -> Iterator[str]:
    """The line about a text corpus."""
    parts = [f"{len(split.file.ids):,} tokens from {split.file.bytes:,} bytes" for split in (train, val)]
    yield f"data: {name}, {parts[0]} to train; {parts[1]} to validate"


def sizes(split: Split, purpose: str) -> str:
    """How many samples a split has, of a mixture by source: `108 samples to train (80 digits, 28 words)`."""
    sources = ", ".join(f"{len(numbers):,} {name}" for name, numbers in split.sources.items())
    return f"{len(split.samples):,} samples to {purpose}{f' ({sources})' if sources else ''}"


def looked_at(samples: Samples) -> list[Mapping[str, Any]]:
    """Some samples, spread over all, without those that cannot be read."""
    found = []
    for number in np.linspace(0, len(samples) - 1, min(LOOKED_AT, len(samples))).astype(int).tolist():
        try:
            found.append(samples[number])
        except (ValueError, OSError):
            continue
    return found


def input_line(chopper: Chopper, raws: Sequence[Any], count: int) -> str:
    """What an input's raw values are and what they become."""
    if not raws:
        return f"not in any of the {count} samples that were looked at"
    try:
        found = chopper.summary(raws)
    except (ValueError, OSError, RuntimeError) as error:
        return f"none of the {len(raws)} samples that were looked at can be read; the first: {error}"
    return found + f" (in {len(raws)} of the {count} samples that were looked at)" * (len(raws) < count)


def summary_of(task: Task, samples: Samples, column: str) -> str:
    """A task's summary of the values in its target column; empty if it has none, or a value cannot be read."""
    try:
        return task.summary(list(samples.column(column)))
    except (ValueError, OSError):
        return ""


# ---------------------------------------------------------------------------------------------------------- overlaps


def overlap_lines(train: Split, val: Split, columns: Mapping[str, str]) -> Iterator[str]:
    """A warning if validation samples share measurements with training samples in all of their sensors, such as windows
    of one recording that overlap and were divided at random."""
    chosen, compared = spread_numbers(len(val.samples), WINDOWS), spread_numbers(len(train.samples), COMPARED)
    common: dict[str, set[int]] = {}
    apart: set[int] = set()
    for name, chopper in train.choppers.items():
        if not chopper.numbers:
            continue
        runs = [runs_in(chopper, val.samples, columns[name], number) for number in chosen]
        owners: dict[bytes, list[int]] = {}
        for index, found in enumerate(runs):
            for run in found:
                owners.setdefault(run, []).append(index)
        known = owners.keys()
        common[name] = {
            index
            for number in compared
            for run in runs_in(chopper, train.samples, columns[name], number) & known
            for index in owners[run]
        }
        apart |= {index for index, found in enumerate(runs) if found} - common[name]
    shared = set().union(*common.values()) - apart
    if 10 * len(shared) > max(len(chosen) * len(compared) / len(train.samples), 10):
        least = "" if len(compared) == len(train.samples) else "at least "
        yield (
            f"{', '.join(name for name in common if common[name] & shared)}: {least}{len(shared)} of {len(chosen)} "
            "validation samples share measurements with training samples, so figures will be too good. Name a "
            "recording of its own with data.dataset.val"
        )


def spread_numbers(count: int, most: int) -> list[int]:
    """At most so many of `count` numbers, spread over them."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def runs_in(chopper: Chopper, samples: Samples, column: str, number: int) -> set[bytes]:
    """All runs of a quarter of a sample's measurements (4 to 16) that are not constant, as bytes."""
    try:
        raw = samples.row(number, (column,)).get(column)
        values = None if raw is None else clock_of(chopper.decode(raw), 1.0)[0].float().numpy()
    except (ValueError, OSError, RuntimeError):
        return set()
    count = 0 if values is None else len(values)
    size = min(max(count // 4, 4), 16)
    runs = (values[first : first + size] for first in range(count - size + 1))
    return {run.tobytes() for run in runs if (run != run[0]).any()}
