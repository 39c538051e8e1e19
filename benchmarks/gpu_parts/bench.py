"""Shared parts of the GPU benchmark: the configurations that are trained, the device and the rows of results."""

from __future__ import annotations

import functools
import gc
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import results
import torch
from chopmix.experiment.assemble import Experiment
from chopmix.experiment.settings.document import dumped
from chopmix.models.pretrained.ast_audio import Ast
from stand_in import trainer_of

ROOT = Path(__file__).resolve().parents[2]


MIXES = ("quickstart", "lm/shakespeare_char", "vision/mnist", "speech/digit_strings_ctc",
         "speech/digit_strings_seq2seq", "t5/books", "bert/books")  # fmt: skip
"""Configurations whose losses are compared: they cover every kind of input, task and attention."""


VIT_S = {
    "inputs": {"image": {"use": "image", "patch_size": 16, "channels": 3, "size": 224}},
    "model": {"width": 384, "depth": 12, "heads": 6, "context": 197, "core_tokens": 1, "attention": "same_sample",
              "block": {"norm": {"use": "layer_norm", "epsilon": 1e-6},
                        "feed_forward": {"use": "gelu", "approximate": "none"}}},
    "tasks": {"label": {"use": "classification", "target": "label", "pooling": "class_token"}},
}  # fmt: skip


TREES = {"vit_s": VIT_S, "ast": Ast().tree()}
"""Models without a YAML in `configs/`: ViT-S for 224 x 224 pixels, and the published AST for sounds of 10.24
seconds."""


TINY = ["model.width=32", "model.depth=1", "model.heads=2"]


class Shape(NamedTuple):
    """A training step whose speed is measured."""

    name: str
    options: list[str]
    tiny: list[str]
    samples: int = 24


SHAPES = {
    "GPT-2 124M, 12 x 1,024": Shape(
        "lm/gpt2_124m", ["inputs.text.encoding=numbers", "inputs.text.vocabulary=50257",
                         "training.tokens_per_step=12288", "training.rows_per_micro_batch=null"],
        [*TINY, "model.context=32", "inputs.text.vocabulary=300", "training.tokens_per_step=64"],
    ),
    "ViT-S, 128 images": Shape("vit_s", ["training.samples_per_step=128"],
                               [*TINY, "inputs.image.size=32", "model.context=5", "training.samples_per_step=4"], 256),
    "AST, 16 sounds": Shape("ast", ["training.samples_per_step=16"],
                            [*TINY, "inputs.sound.length=64", "model.context=64", "training.samples_per_step=2"], 32),
    "quickstart, 64 samples": Shape("quickstart", [], ["model.depth=1", "training.samples_per_step=6"], 640),
}  # fmt: skip


def file_of(name: str, folder: Path) -> Path:
    """Returns the YAML of this name. For a name in TREES it is written into the folder."""
    if name not in TREES:
        return ROOT / "configs" / f"{name}.yaml"
    rest = {
        "data": {"dataset": "mnist"},
        "training": {"steps": 100_000, "samples_per_step": 1, "precision": "bfloat16"},
    }
    file = folder / f"{name}.yaml"
    file.write_text(dumped({**TREES[name], **rest}))
    return file


@functools.cache
def environment() -> dict[str, str]:
    """The device and the commit at the start of this process, which identify rows."""
    return {"processor": results.processor(), "commit": results.commit()}


@dataclass(frozen=True)
class Bench:
    """The device and the settings of the measurements, and the rows of results."""

    device: torch.device
    small: bool = False
    again: bool = False
    part: str = ""

    def rows(self) -> list[dict[str, Any]]:
        """Returns the newest row of each case that was measured on this device at this commit."""
        expected = {**environment(), "device": self.device.type, "small": self.small}.items()
        rows = [row for row in results.read_results("gpu") if all(row.get(key) == value for key, value in expected)]
        return list({(row["part"], row["case"]): row for row in rows}.values())

    def measure(self, case: str, measured: Callable[[], dict[str, Any]]) -> None:
        """Measures a case and writes its row, unless there is one. A failure is written too, and repeated next time."""
        previous = next((row for row in self.rows() if (row["part"], row["case"]) == (self.part, case)), None)
        if previous and not self.again and "failed" not in previous["verdict"]:
            return
        start = time.perf_counter()
        try:
            row = measured()
        except Exception as error:
            traceback.print_exc()
            row = {"verdict": f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"}
        head = {"part": self.part, "case": case, "device": self.device.type, "small": self.small, **environment()}
        results.write_results("gpu", [{**head, **row, "took": time.perf_counter() - start}])

    def trainer(
        self, name: str, overrides: Sequence[str], folder: Path, samples: int = 24, compiled: bool = False
    ) -> Experiment:
        """Builds the training of a configuration on this device. On a CPU no code is generated, which would take
        minutes."""
        torch._dynamo.reset()
        gc.collect()  # a previous trainer holds memory until then
        compiles = f"training.compile={str(compiled).lower()}"
        trainer = trainer_of(file_of(name, folder), self.device, folder / "run", [*overrides, compiles], samples)
        if compiled and self.device.type == "cpu":
            trainer.trainer.learner.replica.objective.compile(backend="aot_eager")
        return trainer

    def wait(self) -> None:
        """Waits until the GPU has finished all work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder for a run and its cache."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CHOPMIX_CACHE"] = str(Path(folder) / "cache")
        yield Path(folder)
