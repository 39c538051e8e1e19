"""The sections of a YAML, `data:`, `training:` and so on, as dataclasses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from torch import nn

from ...data.base import Dataset
from ...inference.evaluator import Evaluator
from ...models.model import Model
from ...models.transformer import Transformer
from ...tasks.base import Task
from ...tokenizers.base import Part, Preprocessor
from ...training.logger import Logger
from ...training.mixup import Mixup
from ...training.optimizers import AdamW, Optimizer
from ...training.schedules import Cosine, Schedule
from .hints import shown
from .registry import Folder, Registry, folder_of, registry_of
from .schema import Choice, Keys, Record, check, json_of, keys_of, model_of, model_of_part, number, problem


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples come from, and what happens to those that cannot be used."""

    dataset: Callable[[], Dataset] | None = None
    """A data set by name (a file of `data/datasets/`), or `{use: NAME, ...}` with options. Imported runs have none."""
    columns: dict[str, str] = field(default_factory=dict)
    """The data set's column that an input reads, where it is not that of its own name: `{camera: image}`."""
    bad_share: float = 0.0
    """The share of samples, 0 to 1, that may be bad (damaged, mislabelled); past it the run stops."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """What becomes of a sample with more tokens than `model.context`: `refuse`: it is a bad one; `drop`: its last
    inputs are left out, as few as suffice, and counted."""
    order: Literal["inputs", "seconds"] = "inputs"
    """The order of a sample's tokens: `inputs`, those of one input after those of another, as the YAML names them;
    `seconds`: by their times, so that `causal` lets none read its future."""
    documents: Literal["joined", "separate"] = "joined"
    """Of a text corpus. `joined`: a row is a window of the whole token stream and one sample; `separate`: every
    document in it is a sample, so that `same_sample` keeps documents from attending to each other."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model is trained. A step is one update from `tokens_per_step` tokens of a text corpus, or from
    `samples_per_step` samples of any other data set, over all processes together."""

    steps: int | None = None
    """Updates in all."""
    minutes: float | None = None
    """Instead of `steps` a budget of time, which is turned into steps once, after a timed warm-up."""
    tokens_per_step: int | None = None
    """Tokens of a text corpus in one update, a multiple of `model.context`."""
    samples_per_step: int | None = None
    """Samples in one update."""
    learning_rate: float | None = None
    """The peak rate of the optimizer's main group (AdamW: all parameters; Muon: the matrices), of which the other
    groups have ratios. null: the optimizer's own, 1e-3 for AdamW, 0.02 for Muon."""
    optimizer: Callable[..., Optimizer] = AdamW
    """`adamw` or `muon`, or `{use: NAME, ...}` with options."""
    schedule: Callable[..., Schedule] = Cosine
    """The learning rate over the steps: a name, or `{use: cosine, warmup: 100, ...}`."""
    clip: float | None = 1.0
    """The largest norm of the whole gradient; null: no clipping."""
    ema: float | None = None
    """Decay (0 to 1) per step of a running average of the weights: for evaluation, `best` and export; null: none."""
    precision: Literal["auto", "fast", "float32", "bfloat16"] = "auto"
    """What matrix products run in; weights stay float32. `auto`: bfloat16 on a GPU that has it, and on a CPU with
    instructions for it where the model is wide enough to gain; `fast`: on such a CPU whatever the width."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile compiles the model. `auto`: on a GPU, for 1,000 steps or more."""
    input_dropout: float | dict[str, float] | Literal["any_number"] = 0.0
    """How often an input is withheld from a sample, at least 0 and below 1: one share for all, or `{image: 0.3, ...}`;
    `any_number`: of each sample any number of inputs, each number equally often, so that every subset can be asked
    about. Inputs that a task predicts never are. Of several others one always stays, except in one sample of 100."""
    mixup: Mixup | None = None
    """Mixup and CutMix of images, Mixup of sounds; null: none."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that are not trained, by complete components of their names, `tokenizers.image`, `attention`,
    `cores.main.blocks.0`, or by role: `role:embedding`."""
    train_only: list[str] = field(default_factory=list)
    """Parameters that alone are trained, named as in `freeze`, such as `adapter`; empty: all."""
    rows_per_micro_batch: int | None = None
    """Rows (or samples) read at once by one process; null: all of its share. Fewer save memory and change only which
    values dropout takes."""
    seed: int = 0
    """Seeds the initial weights, the order of the samples, dropout and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU where torch sees one."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When the model is evaluated on the whole validation split, and what is shown then."""

    every: int = 250
    """Steps between two evaluations; the last step is always evaluated."""
    rows: int = 64
    """Rows (or samples) in one forward pass."""
    generated: int = 256
    """For how many samples that have an item of a task, spread over these, items are generated for metrics; `chopmix
    evaluate` takes all."""
    sample_tokens: int = 120
    """Tokens of the sample text generated at each evaluation; 0: none."""
    prompt: str = ""
    """What the sample text of a text corpus continues; empty: it begins with the start token."""
    also: dict[str, Callable[..., Evaluator]] = field(default_factory=dict)
    """Further evaluators by name: `{cards: {use: mylab.evaluators:Cards, decks: 3}}`. The name of an evaluator is a key
    of its own: `attribution: true` is `also: {attribution: {use: attribution}}`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and which checkpoints are kept."""

    every: int = 250
    """Steps between two checkpoints; the last step, Ctrl-C and SIGTERM always save."""
    keep: int = 2
    """How many of the newest checkpoints are kept, besides the best."""
    average: int | None = None
    """How many of the newest checkpoints are averaged at the end (Vaswani et al. 2017: 5); null: none."""
    best: str = "val/loss"
    """The metric of the validation split by which the best checkpoint is chosen: the smallest `val/loss`, the largest
    `val/accuracy`, as the metric has it."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged while training."""

    every: int = 10
    """Steps between two lines of `metrics.jsonl`."""
    tensorboard: bool = True
    """Whether curves are also written for TensorBoard, in `RUN/tensorboard`."""
    also: dict[str, Callable[..., Logger]] = field(default_factory=dict)
    """Further loggers by name: `{table: {use: mylab.loggers:Table, digits: 3}}`."""


BUILT_IN = ("metrics", "samples")
"""The evaluators of every run, whose options are keys of the section `evaluation`."""


class Short(Choice):
    """Reads the key of an evaluator: false or null as None, true or a mapping of its options as the evaluator, another
    value as the option that `Evaluator.short` names."""

    def __init__(self, registry: Registry, name: str):
        super().__init__(registry)
        self.name = name

    def read(self, value: Any) -> Part | None:
        """The evaluator. Raises ValidationError for options that are unknown, missing or wrong."""
        if value is None or value is False or number(value) == 0:
            return None
        if value is True or isinstance(value, Mapping):
            return super().read({"use": self.name} | (dict(value) if isinstance(value, Mapping) else {}))
        _, evaluator = self.registry.find(self.name)
        if not evaluator.short:
            raise problem(f"must be true, false or a mapping of options, not {shown(value)}")
        return super().read({"use": self.name, evaluator.short: value})

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        _, evaluator = self.registry.find(self.name)
        options = json_of(model_of_part(evaluator), (evaluator,), handler)
        other = {"type": ["boolean", "null", *["number"] * bool(evaluator.short)]}
        return {"anyOf": [options, other], "description": inspect.getdoc(evaluator)}


class EvaluationRecord(Record):
    """Reads the section `evaluation`: the keys of `Evaluation`, and the names of evaluators, which join `also`."""

    def __init__(self, registry: Registry):
        super().__init__("Evaluation", (Evaluation,), Evaluation)
        self.registry = registry
        self.names = [name for name in registry.stems() if name not in BUILT_IN]

    @functools.cached_property
    def model(self) -> Any:
        short = {name: (Annotated[Any, Short(self.registry, name)], None) for name in self.names}
        return model_of("Evaluation", keys_of(Evaluation) | short, inspect.getdoc(Evaluation))

    def read(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return super().read(value)
        value, also = dict(value), value.get("also")
        for name in self.names if isinstance(also, Mapping) else ():  # of a run, whose evaluators are all in `also`
            if name in value and isinstance(also.get(name), Mapping) and isinstance(value[name], Mapping):
                value[name] = {key: each for key, each in also[name].items() if key != "use"} | value[name]
        values = check(self.model, value)
        short = {name: values.pop(name) for name in self.names}
        kept = {name: part for name, part in values["also"].items() if name not in value}
        return Evaluation(**values | {"also": kept | {name: part for name, part in short.items() if part}})


def _record(target: type) -> Any:
    return Annotated[Any, Record(target.__name__, (target,), target)]


def _model(**options: Any) -> Part:
    return Part(Transformer, options)


def is_tokenizer(found: Any) -> bool:
    """Whether an object is the tokenizer of an input: a torch module with a `Chopper` inside, a `Preprocessor`."""
    chopper = getattr(found, "Chopper", None)
    both = inspect.isclass(found) and inspect.isclass(chopper)
    return both and issubclass(found, nn.Module) and issubclass(chopper, Preprocessor)


@functools.cache
def sections() -> Keys:
    """The top level of a YAML: annotation and default of every section (`...`: it must be given)."""
    tokenizers = Folder("tokenizers", "tokenizer: a torch module with a Chopper", is_tokenizer)
    return {
        "inputs": (dict[str, Annotated[Any, Choice(tokenizers)]], ...),
        "model": (Annotated[Any, Record("model", (Transformer, Model), _model)], ...),
        "tasks": (dict[str, Annotated[Any, Choice(folder_of("tasks", Task))]], ...),
        "data": (_record(Data), ...),
        "training": (_record(Training), ...),
        "evaluation": (Annotated[Any, EvaluationRecord(registry_of((Evaluator,)))], {}),
        "checkpoints": (_record(Checkpoints), {}),
        "logging": (_record(Logging), {}),
        "from": (str | None, None),
        "out": (str | None, None),
    }
