"""Runs with random weights, in memory, on a data set with a column of every kind."""

from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from chopmix.data.sample_dataset import SampleDataset
from chopmix.data.samples import Listed
from chopmix.experiment.build import build_model, choppers_and_tasks
from chopmix.experiment.run import Run, open_part
from chopmix.experiment.settings.config import config_from_tree
from chopmix.files.plugins import modules_of
from chopmix.files.trust import Trust

WORDS = ("chop", "mix", "set", "token")


class Everything(SampleDataset):
    """Samples with two texts, a picture, a stream of numbers and one of categories, a sound, a clip, a score, a class,
    a number and the next numbers of the stream."""

    splits = ("train", "val")
    columns = ("text", "other", "image", "wave", "moves", "sound", "clip", "tune", "label", "value", "future")

    def open(self, split):
        random = np.random.default_rng(0)
        rows = [
            {
                "text": f"{WORDS[n % 4]} {WORDS[n % 3]} set", "other": WORDS[n % 3],
                "image": random.integers(256, size=(8, 8, 1), dtype=np.uint8), "wave": random.normal(size=(12, 2)),
                "moves": random.integers(3, size=6), "sound": (random.normal(size=800).astype(np.float32) / 9, 8000),
                "clip": random.integers(256, size=(3, 8, 8, 1), dtype=np.uint8),
                "tune": random.integers(60, 64, size=(4, 2)), "label": WORDS[n % 2], "value": float(n),
                "future": np.random.default_rng(n).normal(size=(4, 2)),
            }
            for n in range(8)
        ]  # fmt: skip
        return Listed([f"{split} {n}" for n in range(8)], rows)


class OfExample(Everything):
    """The same samples with a further column `x`: the items of `EXAMPLE` in the module of a tokenizer."""

    columns = (*Everything.columns, "x")

    def __init__(self, *, tokenizer: str):
        self.tokenizer = tokenizer

    def open(self, split):
        items = import_module(modules_of("tokenizers")[self.tokenizer]).EXAMPLE.items()
        samples = super().open(split)
        return Listed(samples.keys, [{**row, "x": items[n % len(items)]} for n, row in enumerate(samples.rows)])


def untrained(inputs: dict, tasks: dict, model: dict | None = None, dataset: object = "untrained:Everything",
              columns: dict | None = None) -> Run:  # fmt: skip
    """A run with random weights on this data set; statistics of the data are stored in the working folder."""
    use = dataset.get("use") if isinstance(dataset, dict) else dataset
    on_samples = use in ("untrained:Everything", "untrained:OfExample")
    tree = {
        "inputs": inputs, "tasks": tasks,
        "data": {"dataset": dataset} | ({"columns": columns} if columns else {}),
        "model": {"width": 16, "depth": 1, "heads": 2, "context": 64, "attention": "same_sample", **(model or {})},
        "training": {"steps": 1} | ({"samples_per_step": 4} if on_samples else {"tokens_per_step": 280}),
        "out": "nowhere",
    }  # fmt: skip
    trust = Trust.of(["untrained", "leaking"])
    config = config_from_tree(tree, trust=trust)
    choppers, built_tasks = choppers_and_tasks(
        config, Path("nowhere"), partial(open_part, trust=trust), config.data.dataset()
    )
    torch.manual_seed(0)
    model = build_model(config, choppers, built_tasks).eval()
    return Run(folder=Path("nowhere"), config=config, step=0, model=model, tasks=built_tasks, choppers=choppers)
