"""Data that stand in for those of a configuration, drawn at random in its shapes: so that any of them takes a step
anywhere, without what it reads. `benchmarks/gpu.py` and `tests/training/test_cuda_rules.py` train on such data."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chopmix.data.base import Dataset, Document
from chopmix.data.processes import Processes
from chopmix.data.samples import Listed, SampleDataset
from chopmix.experiment.settings.config import Config, load_config
from chopmix.experiment.train import Experiment, assemble, counted, start
from chopmix.tasks.classification import Classification
from chopmix.tasks.regression import Regression
from chopmix.tokenizers.category import CategoryChopper
from chopmix.tokenizers.text import TextTokenizer
from chopmix.tokenizers.video import VideoChopper
from chopmix.training.log import Progress

WORDS = ["chop", "mix", "set", "token"]


class Corpus(Dataset):
    """Documents of a few words; or, with `numbers`, of numbers below that, as the encoding `numbers` has them."""

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
    """Samples whose columns are drawn at random, by what makes a value of each; `count` to train on."""

    def __init__(self, makers: Mapping[str, Callable[[np.random.Generator, int], Any]], count: int = 24):
        self.makers, self.columns, self.count = makers, tuple(makers), count

    def open(self, split: str) -> Listed:
        random = np.random.default_rng(len(split))
        numbers = range(self.count if split == "train" else 5)
        rows = [{name: make(random, number) for name, make in self.makers.items()} for number in numbers]
        return Listed([f"{split} {number}" for number in numbers], rows)


def drawn_value(chopper: Any, random: np.random.Generator) -> Any:
    """A raw value of the kind that this chopper reads."""
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
        marks = getattr(chopper, "notes", ())  # of a text with notes
        return "".join([*random.choice(list("abcde "), int(random.integers(1, 6))), *marks])
    if isinstance(chopper, VideoChopper):
        return random.integers(256, size=(int(random.integers(1, 4)), *chopper.image.shape), dtype=np.uint8)
    if isinstance(chopper, CategoryChopper):
        return random.integers(chopper.size, size=(int(random.integers(1, 4)), *chopper.shape))
    return random.standard_normal((int(random.integers(1, 2 * chopper.window + 1)), len(chopper.names)))


def makers(config: Config) -> dict[str, Callable[[np.random.Generator, int], Any]]:
    """What makes a value for every column that the inputs and the tasks of a configuration read."""
    found: dict[str, Callable[[np.random.Generator, int], Any]] = {}
    for name, part in config.inputs.items():
        chopper = part.of(part.target.Chopper)()
        found[config.data.columns.get(name, name)] = lambda random, _, chopper=chopper: drawn_value(chopper, random)
    for task in (part() for part in config.tasks.values()):
        for column in task.needs.columns:
            if isinstance(task, Regression):
                count = len(task.names or [0])
                found[column] = lambda random, _, count=count: random.standard_normal(count).tolist()
            elif isinstance(task, Classification):
                unlabelled = task.unlabelled
                found[column] = lambda _, n, some=unlabelled: None if some and n % 4 == 3 else "abc"[n % 3]
            else:
                found[column] = lambda random, _: "".join(random.choice(list("ab"), 2))
    return found


def on_stand_ins(config: Config, count: int = 24) -> Config:
    """The configuration on drawn data, and from its own first values."""
    if issubclass(config.data.dataset.target, SampleDataset):
        dataset: Dataset = Drawn(makers(config), count)
    else:
        texts = [part.options for part in config.inputs.values() if part.target is TextTokenizer]
        numbers = next((each["vocabulary"] - 1 for each in texts if each.get("encoding") == "numbers"), 0)
        dataset = Corpus(numbers)
    evaluation = replace(config.evaluation, also={})  # there is no environment
    return replace(config, from_run=None, evaluation=evaluation, data=replace(config.data, dataset=lambda: dataset))


def quickly_encoded(config: Config) -> list[str]:
    """Overrides by which no text encoding is trained or published: bytes."""
    found = []
    for name, part in config.inputs.items():
        text = part.target is TextTokenizer and config.wiring.owners[name] == name
        if text and part.options["encoding"] not in ("characters", "numbers"):
            found += [f"inputs.{name}.encoding=bytes", f"inputs.{name}.vocabulary=null"]
    return found


def without_parts(config: Config) -> list[str]:
    """Overrides by which no trained run is needed: no judges, small pictures of few colours for its codes, and pictures
    for what it would encode."""
    encoded = [name for name, part in config.inputs.items() if part.use == "encoded"]
    codes = [name for name, part in config.inputs.items() if part.use == "codes"]
    judged = [name for name, part in config.tasks.items() if isinstance(part.options.get("metrics"), dict)]
    found = [f"inputs.{name}={{use: image_ids, size: 8, patch_size: 2}}" for name in codes]
    found += [f"inputs.{name}={{use: image, size: 8, patch_size: 2, channels: 3}}" for name in encoded]
    return found + [f"tasks.{name}.metrics={{}}" for name in judged]


def small(config: Config) -> list[str]:
    """Overrides by which a configuration is quickly built and run: one layer, a handful of samples, quick encodings, no
    parts."""
    encoder, context = config.model.options["encoder"], config.model.options["context"]
    found = ["model.depth=1", *without_parts(config), "data.too_long=drop", *quickly_encoded(config)]
    found += ["model.encoder.depth=1"] if encoder else []
    if config.training.samples_per_step:
        found += ["training.samples_per_step=6"]
    else:
        corpus = not issubclass(config.data.dataset.target, SampleDataset)
        window = max(task().needs.window(context, encoder.context if encoder else 0) for task in config.tasks.values())
        found += [f"training.tokens_per_step={3 * window if corpus else 200}"]
    return found + (["training.rows_per_micro_batch=2"] if config.training.rows_per_micro_batch else [])


def without_chance(config: Config) -> list[str]:
    """Overrides by which nothing is drawn on the device, where a GPU draws otherwise: no dropout, no augmentation."""
    found = ["model.dropout=0", "training.mixup=null"]
    for name, part in config.inputs.items():
        found += [
            f"inputs.{name}.{option}=null" for option, value in part.options.items() if "augment" in option and value
        ]
    return found


def trainer_of(
    file: Path, device: torch.device, out: Path, overrides: Sequence[str] = (), count: int = 24
) -> Experiment:
    """What trains a configuration on drawn data; `out` is a folder of its own."""
    config = counted(on_stand_ins(load_config(file, [*overrides, f"out={out}"]), count), steps=100)
    made = assemble(config, Processes(0, 1, device), Progress(1, stream=io.StringIO()))
    start(made)
    return made
