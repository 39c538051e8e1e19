"""Random data with the shapes that a configuration expects, so that it can be trained without its data set.
`benchmarks/gpu.py` and `tests/training/test_cuda_rules.py` train on such data."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chopmix.data.base import Dataset, Document
from chopmix.data.processes import Processes
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.assemble import Experiment, assemble, start
from chopmix.experiment.settings.config import Config, load_config
from chopmix.experiment.steps import counted
from chopmix.tasks.classification import Classification
from chopmix.tasks.forecast import Forecast
from chopmix.tasks.regression import Regression
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.text import TextTokenizer
from chopmix.tokenizers.video import VideoChopper
from chopmix.training.progress import Progress

WORDS = ["chop", "mix", "set", "token"]


class Corpus(Dataset):
    """Documents of a few random words or, if `numbers` is positive, of ids below it in the form of the encoding
    `numbers`."""

    def __init__(self, numbers: int = 0):
        self.numbers = numbers

    def documents(self, split: str) -> Iterator[Document]:
        random = np.random.default_rng(len(split))
        for name in range(60):
            if self.numbers:
                text = "".join(f"<{number}>" for number in random.integers(self.numbers, size=600))
            else:
                text = " ".join(random.choice(WORDS, int(random.integers(3, 60))))
            yield Document(f"{split} {name}", text)

    def source_hash(self, split: str) -> str:
        return f"{split} {self.numbers}"

    def about(self) -> dict[str, object]:
        return {}


class Drawn(SampleDataset):
    """Samples with random columns. `makers` has a function for each column; `count` is the number of training
    samples."""

    def __init__(self, makers: Mapping[str, Callable[[np.random.Generator, int], Any]], count: int = 24):
        self.makers, self.columns, self.count = makers, tuple(makers), count

    def open(self, split: str) -> Listed:
        random = np.random.default_rng(len(split))
        numbers = range(self.count if split == "train" else 5)
        rows = [{name: make(random, number) for name, make in self.makers.items()} for number in numbers]
        return Listed([f"{split} {number}" for number in numbers], rows)


def drawn_value(chopper: Any, random: np.random.Generator) -> Any:
    """Returns a random raw value for this chopper."""
    if chopper.kind == "image":
        chopper = getattr(chopper, "pictures", lambda: chopper)()
        shape = chopper.shape or (3 * chopper.patch_size, 2 * chopper.patch_size)
        return random.integers(256, size=(*shape, chopper.channels), dtype=np.uint8)
    if chopper.kind == "sound":
        seconds = random.uniform(0.3, 0.9) * min(chopper.longest, 1.0)
        return random.standard_normal(round(seconds * chopper.rate)).astype(np.float32), chopper.rate
    if chopper.kind == "score":
        return random.integers(50, 70, size=(int(random.integers(4, 12)), chopper.voices))
    if chopper.kind == "text":
        marks = getattr(chopper, "notes", ())  # only of a text with notes
        return "".join([*random.choice(list("abcde "), int(random.integers(1, 6))), *marks])
    if isinstance(chopper, VideoChopper):
        return random.integers(256, size=(int(random.integers(1, 4)), *chopper.image.shape), dtype=np.uint8)
    if isinstance(chopper, CategoryChopper):
        return random.integers(chopper.size, size=(int(random.integers(1, 4)), *chopper.shape))
    return random.standard_normal((int(random.integers(1, 2 * chopper.window + 1)), len(chopper.names)))


def makers(config: Config) -> dict[str, Callable[[np.random.Generator, int], Any]]:
    """Returns a function that draws a value, for every column that the inputs and tasks of a configuration read."""
    functions: dict[str, Callable[[np.random.Generator, int], Any]] = {}
    for name, part in config.inputs.items():
        chopper = part.of(part.target.Chopper)()
        functions[config.data.columns.get(name, name)] = lambda random, _, chopper=chopper: drawn_value(chopper, random)
    for task in (part() for part in config.tasks.values()):
        for column in task.needs.columns:
            if isinstance(task, Regression):
                count = len(task.names or [0])
                functions[column] = lambda random, _, count=count: random.standard_normal(count).tolist()
            elif isinstance(task, Forecast):
                part = config.inputs[task.input]
                chopper = part.of(part.target.Chopper)()
                steps, width = 2 * math.lcm(chopper.window, chopper.period or 1), len(chopper.names)
                stream = config.data.columns.get(task.input, task.input)
                functions[stream] = lambda random, _, shape=(steps, width): random.standard_normal(shape)
                future = task.first or 4, width
                functions[column] = lambda random, _, shape=future: random.standard_normal(shape)
            elif isinstance(task, Classification):
                unlabelled = task.unlabelled
                functions[column] = lambda _, n, some=unlabelled: None if some and n % 4 == 3 else "abc"[n % 3]
            elif column == getattr(task, "advantage", None):
                functions[column] = lambda random, _: float(random.standard_normal())
            else:
                functions[column] = lambda random, _: "".join(random.choice(list("ab"), 2))
    return functions


def on_stand_ins(config: Config, count: int = 24) -> Config:
    """Returns the configuration with random data and without `from`."""
    if issubclass(config.data.dataset.target, SampleDataset):
        dataset: Dataset = Drawn(makers(config), count)
    else:
        texts = [part.options for part in config.inputs.values() if part.target is TextTokenizer]
        numbers = next((text["vocabulary"] - 1 for text in texts if text.get("encoding") == "numbers"), 0)
        dataset = Corpus(numbers)
    evaluation = replace(config.evaluation, also={})  # agents would need an environment
    data = replace(config.data, dataset=lambda: dataset, split=None)
    return replace(config, from_run=None, evaluation=evaluation, data=data)


def quickly_encoded(config: Config) -> list[str]:
    """Returns overrides that use bytes for all texts, so that no vocabulary is trained or downloaded."""
    overrides = []
    for name, part in config.inputs.items():
        text = part.target is TextTokenizer and config.wiring.owners[name] == name
        if text and part.options["encoding"] not in ("characters", "numbers"):
            overrides += [f"inputs.{name}.encoding=bytes", f"inputs.{name}.vocabulary=null"]
    return overrides


def without_parts(config: Config) -> list[str]:
    """Returns overrides that remove references to trained runs: no judges, `image_ids` instead of codes, and images
    instead of encoded inputs."""
    encoded = [name for name, part in config.inputs.items() if part.use == "encoded"]
    codes = [name for name, part in config.inputs.items() if part.use == "codes"]
    with_judges = [name for name, part in config.tasks.items() if isinstance(part.options.get("metrics"), dict)]
    overrides = [f"inputs.{name}={{use: image_ids, size: 8, patch_size: 2}}" for name in codes]
    overrides += [f"inputs.{name}={{use: image, size: 8, patch_size: 2, channels: 3}}" for name in encoded]
    return overrides + [f"tasks.{name}.metrics={{}}" for name in with_judges]


def small(config: Config) -> list[str]:
    """Returns overrides that make a configuration fast: one layer, few samples, byte encodings, no trained runs."""
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    overrides = ["model.depth=1", *without_parts(config), "data.too_long=drop", *quickly_encoded(config)]
    overrides += ["model.encoder.depth=1"] if encoder else []
    if config.training.samples_per_step:
        overrides += ["training.samples_per_step=6"]
    else:
        corpus = not issubclass(config.data.dataset.target, SampleDataset)
        window = max(task().needs.window(context, encoder.context if encoder else 0) for task in config.tasks.values())
        overrides += [f"training.tokens_per_step={3 * window if corpus else 200}"]
    return overrides + (["training.rows_per_micro_batch=2"] if config.training.rows_per_micro_batch else [])


def without_chance(config: Config) -> list[str]:
    """Returns overrides that remove random numbers drawn on the device, which differ on a GPU: dropout,
    augmentation."""
    overrides = ["model.dropout=0", "training.mixup=null"]
    for name, part in config.inputs.items():
        overrides += [
            f"inputs.{name}.{option}=null" for option, value in part.options.items() if "augment" in option and value
        ]
    return overrides


def trainer_of(
    file: Path, device: torch.device, out: Path, overrides: Sequence[str] = (), count: int = 24
) -> Experiment:
    """Builds the training of a configuration on random data in the new folder `out`."""
    config = counted(on_stand_ins(load_config(file, [*overrides, f"out={out}"]), count), steps=100)
    experiment = assemble(config, Processes(0, 1, device), Progress(1, stream=io.StringIO()))
    start(experiment)
    return experiment
