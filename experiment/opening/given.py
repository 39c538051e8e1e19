"""Splits for a trained run to read: of its own data, of another data set, or of samples in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def own_split(run: Opened, split: str, dataset: Dataset | None = None) -> Split:
    """A split, with tasks and labels, of the data set that the run was trained on, or of `dataset`. Raises RunError
    where the run was imported and none is given, DataError for data that cannot be read."""
    return open_split(run.config, dataset or run.dataset(), split, run.choppers, run.tasks)


def given_split(run: Opened, samples: Sequence[Mapping[str, Any]], asked: bool = True) -> SampleSplit:
    """Samples in memory, mappings of inputs to raw values, as a split with the keys "sample 1", "sample 2", ...

    `asked`: chopped as for prediction (the text of a mask token is that token, to be filled in), else as for training.
    A sample in which every input of the encoder is missing or empty counts as bad. Raises RunError for an input that
    the run does not have."""
    for sample in samples:
        if unknown := [name for name in sample if name not in run.choppers]:
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
        given = [sample.get(name) for name in encoded]
        if encoded and all(isinstance(value, NoneType | str | bytes) and not value for value in given):
            split.unread.bad[number] = f"the encoder has nothing to read: {' or '.join(encoded)} must hold something"
    return split
