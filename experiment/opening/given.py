"""Splits for a trained run to read: of its own data, of another data set, or of samples in memory; and the checks of
such samples, which `predict` and `generate` share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import NoneType
from typing import Any

from ...data.base import Dataset
from ...data.samples.dataset import Listed
from ...data.samples.split import SampleSplit
from ...data.split import Split
from ...tokenizers.base import Chopper
from ..data.samples import read_samples
from ..data.splits import open_split
from ..folder.reading import RunError
from .opened import Opened

Sample = Mapping[str, Any]
"""Raw values (a path, the content of a file, an array, a text) by input; None for an input that it lacks."""


def own_split(run: Opened, split: str, dataset: Dataset | None = None) -> Split:
    """A split, with tasks and labels, of the data set that the run was trained on, or of `dataset`. Raises RunError
    where the run was imported and none is given, DataError for data that cannot be read."""
    return open_split(run.config, dataset or run.dataset(), split, run.choppers, run.tasks)


def samples_of(samples: Any) -> list[Sample]:
    """One sample, or several, as a list. Raises RunError for a sample that is no mapping."""
    found = [samples] if isinstance(samples, Mapping) else list(samples)
    for sample in found:
        if not isinstance(sample, Mapping):
            raise RunError(
                f"a sample maps inputs to values, as {{'image': 'cat.png'}}; this is {type(sample).__name__}"
            )
    return found


def read_by(run: Opened, name: str) -> list[str]:
    """The inputs that the task `name` answers from, in the order of the model: all but the item that it generates,
    those that a task makes of others, and predicted ones that follow its target, which it did not read in training."""
    task, order = run.tasks[name], list(run.choppers)
    made = {each for other in run.tasks.values() for each in other.needs.makes}
    if task.needs.generates:
        predicted = {each for other in run.tasks.values() if not other.needs.refines for each in other.needs.inputs}
        made |= {task.target} | (predicted & {*order[order.index(task.target) :]})
        made -= {*task.needs.inputs} - {task.target}
    return [each for each in order if each not in made]


def readable(run: Opened, tasks: Collection[str]) -> list[str]:
    """The inputs that at least one of these tasks reads, in the order of the model."""
    found = {each for name in tasks for each in read_by(run, name)}
    return [each for each in run.choppers if each in found]


def check_samples(run: Opened, samples: Sequence[Sample], tasks: Collection[str]) -> None:
    """Raises RunError for an input that the run does not have, and for one that none of these tasks reads."""
    known, written = readable(run, tasks), {run.tasks[name].target: name for name in tasks}
    possible = f"possible: {', '.join(known)}" if known else "it has no other inputs"
    for name in dict.fromkeys(name for sample in samples for name in sample if name not in known):
        if name not in run.choppers:
            raise RunError(f"{run.folder} has no input {name!r}; possible: {', '.join(known or run.choppers)}")
        if name in written:
            raise RunError(
                f"{run.folder} writes {name!r}, which is no input of its own task; {possible}. `chopmix generate` "
                "takes the beginning of a text by --prompt"
            )
        raise RunError(f"{run.folder} does not read {name!r} where it writes {' and '.join(written)}; {possible}")


def say_missing(run: Opened, samples: Sequence[Sample], tasks: Collection[str], say: Callable[[str], None]) -> None:
    """Call `say` with the inputs that samples lack: `'answer' is written without image, sound`."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in tasks:
        task = run.tasks[name]
        read = [each for each in read_by(run, name) if each != task.target]
        verb = "written" if task.needs.generates or task.needs.refines else "predicted"
        lacking = Counter(", ".join(each for each in read if sample.get(each) is None) for sample in samples)
        for names, count in lacking.items():
            share = f"{count:,} of {len(samples):,} samples: " if count < len(samples) else ""
            if names:
                found.setdefault((share, f"{verb} without {names}"), []).append(repr(task.target))
    for (share, how), targets in found.items():
        say(f"{share}{', '.join(targets)} {'is' if len(targets) == 1 else 'are'} {how} (--input NAME=VALUE)")


def given_split(run: Opened, samples: Sequence[Sample], asked: bool = True) -> SampleSplit:
    """Samples in memory, mappings of inputs to raw values, as a split with the keys "sample 1", "sample 2", ...

    `asked`: chopped as for prediction (the text of a mask token is that token, to be filled in), else as for training.
    A sample in which every input of the encoder is missing or empty counts as bad. Raises RunError for an input that
    the run does not have."""
    if unknown := [name for sample in samples for name in sample if name not in run.choppers]:
        raise RunError(f"{run.folder} has no input {unknown[0]!r}; possible: {', '.join(run.choppers)}")
    choppers: Mapping[str, Chopper] = run.choppers
    for task in run.tasks.values() if asked else ():
        choppers = {**choppers, **{name: change(choppers[name]) for name, change in task.needs.asked.items()}}
    labels = [column for task in run.tasks.values() for column in task.needs.columns]
    keys = [f"sample {number + 1}" for number in range(len(samples))]
    columns = {name: name for name in run.choppers}
    split = read_samples(run.config, Listed(keys, samples), "given", choppers, lambda text: None, columns, labels)
    encoded = split.inputs.encoded
    for number, sample in enumerate(samples):
        values = [sample.get(name) for name in encoded]
        if encoded and all(isinstance(value, NoneType | str | bytes) and not value for value in values):
            split.unread.bad[number] = f"the encoder has nothing to read: {' or '.join(encoded)} must hold something"
    return split


def check_predicts(run: Opened, samples: Sequence[Sample], tasks: Collection[str]) -> None:
    """Raises RunError if these tasks only continue texts, and as `check_samples`."""
    check_samples(run, samples, tasks)
    if not readable(run, tasks):
        targets = " and ".join(run.tasks[name].target for name in tasks)
        raise RunError(
            f"{run.folder} continues texts: it writes {targets} and has no other input to predict from. Use `chopmix "
            f"generate {run.folder} --prompt TEXT`"
        )


def predicted_split(
    run: Opened, samples: Sequence[Sample], tasks: Collection[str], say: Callable[[str], None]
) -> SampleSplit:
    """Samples in memory from which these tasks predict. A sample without a value of any of their inputs counts as bad;
    `say` is called with the inputs that others lack."""
    split, known = given_split(run, samples), readable(run, tasks)
    for number, sample in enumerate(samples):
        if all(sample.get(name) is None for name in known):
            split.unread.bad.setdefault(number, f"it has none of the inputs {', '.join(known)}")
    say_missing(run, [each for number, each in enumerate(samples) if number not in split.unread.bad], tasks, say)
    return split
