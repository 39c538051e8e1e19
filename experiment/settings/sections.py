"""The sections of a YAML, and the settings of those that are no parts: `data:`, `training:` and so on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from torch import nn

from ...data.base import Dataset
from ...models.model import Model
from ...models.transformer import Transformer
from ...tasks.base import Task
from ...tokenizers.base import Preprocessor
from ...training.mixup import Mixup
from ...training.optimizers import AdamW, Optimizer
from ...training.schedules import Cosine, Schedule
from .registry import ROOT, Folder, folder_of
from .schema import Choice, Keys, Part, Record


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples come from."""

    dataset: Callable[[], Dataset] | None = None
    """A data set by name (a file of `data/datasets/`), or `{use: NAME, ...}` with options. Imported runs have none."""
    columns: dict[str, str] = field(default_factory=dict)
    """Which column of the data set each input reads, where it is not the one of its own name: `{camera: image}`."""
    bad_share: float = 0.0
    """The share of samples that may be bad (damaged, mislabelled); past it the run stops."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a sample that does not fit `model.context`: `refuse`: it is a bad one; `drop`: its last inputs
    are left out, as few as will do, and counted."""
    documents: Literal["joined", "separate"] = "joined"
    """`joined`: a row is a window of the whole stream and one sample; `separate`: every document in it is its own
    sample, so that `same_sample` keeps documents from reading each other."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model is trained. A step is one update from `tokens_per_step` tokens of a text corpus, or from
    `samples_per_step` samples of any other data set, over all processes together."""

    steps: int
    tokens_per_step: int | None = None
    samples_per_step: int | None = None
    learning_rate: float | None = None
    """The peak rate of the optimizer's main group (AdamW: all parameters; Muon: the matrices), of which the other
    groups have ratios. null: the optimizer's own, 1e-3 for AdamW, 0.02 for Muon."""
    optimizer: Callable[..., Optimizer] = AdamW
    schedule: Callable[..., Schedule] = Cosine
    clip: float | None = 1.0
    """The largest norm of the whole gradient; null: no clipping."""
    ema: float | None = None
    """Decay per step of a running average of the weights, used by evaluation, `best` and export; null: none."""
    precision: Literal["auto", "fast", "float32", "bfloat16"] = "auto"
    """What matrix products run in; weights stay float32. `auto`: bfloat16 on a GPU that has it, and on a CPU with
    instructions for it where the model is wide enough to gain; `fast`: on such CPUs whatever the width."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile translates the model. `auto`: on a GPU when the run is long enough to pay for it."""
    input_dropout: float | dict[str, float] = 0.0
    """How often an input is withheld from a sample, one share for all or one for each; what is predicted never is. One
    input of a sample always stays, except in one sample of a hundred."""
    mixup: Mixup | None = None
    """Mixup and CutMix of images; null: none."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that stay as they are, by the beginning of their names: `tokenizers.image`, `cores.main.blocks.0`."""
    rows_per_micro_batch: int | None = None
    """Rows (or samples) read at once by one process; null: all of its share. Fewer save memory and change nothing."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When the validation split is read, whole, and what is shown then."""

    every: int = 250
    """Steps between two evaluations; the last step is always evaluated."""
    rows: int = 64
    """Rows read at once."""
    attribution: bool = False
    """Whether the last evaluation also tells what each input is worth: metrics of every subset of them, and bits."""
    generated: int = 256
    """On how many samples, spread over the split, tasks write whole texts; `chopmix evaluate` takes all."""
    sample_tokens: int = 120
    """Length of the text sample written at each evaluation; 0: none."""
    prompt: str = ""
    """What the sample continues; by default it starts from the start token."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and how much of it is kept."""

    every: int = 250
    """Steps between two checkpoints; the last step, Ctrl-C and SIGTERM always save."""
    keep: int = 2
    """How many of the newest are kept, besides the best."""
    average: int | None = None
    """Of how many of the newest checkpoints the weights are averaged at the end (the 2017 paper: 5); null: none."""
    best: str = "val/loss"
    """The metric (smaller is better) by which `best.json` is chosen."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is written while training."""

    every: int = 10
    """Steps between two lines of `metrics.jsonl`."""
    tensorboard: bool = True
    """Whether curves are also written for TensorBoard, in `RUN/tensorboard`."""


def _record(target: type) -> Any:
    return Annotated[Any, Record(target.__name__, (target,), target)]


def _model(**options: Any) -> Part:
    return Part(Transformer, options)


def is_tokenizer(found: Any) -> bool:
    """Whether a class is the embedder of an input, with the chopper that belongs to it."""
    chopper = getattr(found, "Chopper", None)
    both = inspect.isclass(found) and inspect.isclass(chopper)
    return both and issubclass(found, nn.Module) and issubclass(chopper, Preprocessor)


@functools.cache
def sections() -> Keys:
    """The top level of a YAML: annotation and default of every section."""
    tokenizers = Folder(f"{ROOT}.tokenizers", "tokenizer: a torch module with a Chopper", is_tokenizer)
    return {
        "inputs": (dict[str, Annotated[Any, Choice(tokenizers)]], ...),
        "model": (Annotated[Any, Record("model", (Transformer, Model), _model)], ...),
        "tasks": (dict[str, Annotated[Any, Choice(folder_of(f"{ROOT}.tasks", Task))]], ...),
        "data": (_record(Data), ...),
        "training": (_record(Training), ...),
        "evaluation": (_record(Evaluation), {}),
        "checkpoints": (_record(Checkpoints), {}),
        "logging": (_record(Logging), {}),
        "from": (str | None, None),
        "out": (str | None, None),
    }
