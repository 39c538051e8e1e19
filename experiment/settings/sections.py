"""The sections of a YAML (`data:`, `training:`, ...) as dataclasses."""

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
    """The source of the samples, and the treatment of samples that cannot be used."""

    dataset: Callable[[], Dataset] | None = None
    """A data set by name (a file of `data/datasets/`), or `{use: NAME, ...}` with options. Imported runs have none."""
    columns: dict[str, str] = field(default_factory=dict)
    """The data set's column that an input reads, if it differs from the name of the input: `{camera: image}`."""
    bad_share: float = 0.0
    """The largest share of samples, 0 to 1, that may be bad (damaged or mislabelled). If there are more, the run
    stops."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """The treatment of a sample with more tokens than `model.context`. `refuse`: the sample is bad; `drop`: its last
    inputs are dropped, as few as necessary, and counted."""
    order: Literal["inputs", "seconds"] = "inputs"
    """The order of a sample's tokens. `inputs`: input after input, as listed in the YAML; `seconds`: by time, so that
    with `causal` no token attends to its future."""
    documents: Literal["joined", "separate"] = "joined"
    """For a text corpus. `joined`: a row is a window of the continuous token stream and counts as one sample;
    `separate`: every document in a row is a sample, so that `same_sample` keeps documents from attending to each
    other."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model is trained. A step is one update from `tokens_per_step` tokens of a text corpus, or from
    `samples_per_step` samples of any other data set, summed over all processes."""

    steps: int | None = None
    """The total number of updates."""
    minutes: float | None = None
    """A time budget instead of `steps`. It is converted to steps once, after a timed warm-up."""
    tokens_per_step: int | None = None
    """The number of tokens of a text corpus in one update, a multiple of `model.context`."""
    samples_per_step: int | None = None
    """The number of samples in one update."""
    learning_rate: float | None = None
    """The peak learning rate of the optimizer's main group (AdamW: all parameters; Muon: the matrices); the rates of
    the other groups are ratios of it. null: the optimizer's default, 1e-3 for AdamW, 0.02 for Muon."""
    optimizer: Callable[..., Optimizer] = AdamW
    """`adamw` or `muon`, or `{use: NAME, ...}` with options."""
    schedule: Callable[..., Schedule] = Cosine
    """The learning rate schedule over the steps: a name, or `{use: cosine, warmup: 100, ...}`."""
    clip: float | None = 1.0
    """The largest norm of the gradient over all parameters; null: no clipping."""
    ema: float | None = None
    """The decay per step (0 to 1) of an exponential moving average of the weights, which is used for evaluation, `best`
    and export; null: none."""
    precision: Literal["auto", "fast", "float32", "bfloat16"] = "auto"
    """The precision of matrix products; weights stay float32. `auto`: bfloat16 on a GPU that supports it, and on a CPU
    with bfloat16 instructions if the model is wide enough to be faster; `fast`: on such a CPU for any width."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile compiles the model. `auto`: on a GPU, for 1,000 steps or more."""
    input_dropout: float | dict[str, float] | Literal["any_number"] = 0.0
    """The share of samples from which an input is dropped, at least 0 and below 1: one share for all inputs, or
    `{image: 0.3, ...}`. `any_number`: from each sample any number of inputs is dropped, with equal probability for each
    number, so that the model can be evaluated with every subset. Inputs that a task predicts are never dropped. Of
    several other inputs at least one stays, except in one sample of 100."""
    mixup: Mixup | None = None
    """Mixup and CutMix of images, Mixup of sounds; null: none."""
    freeze: list[str] = field(default_factory=list)
    """Parameters that are not trained, by complete components of their names, `tokenizers.image`, `attention`,
    `cores.main.blocks.0`, or by role: `role:embedding`."""
    train_only: list[str] = field(default_factory=list)
    """The only parameters that are trained, named as in `freeze`, such as `adapter`; empty: all."""
    rows_per_micro_batch: int | None = None
    """The number of rows (or samples) in one forward pass of a process; null: its share of the batch. A smaller number
    saves memory and changes only the random values of dropout."""
    seed: int = 0
    """The seed of the initial weights, the order of the samples, dropout and augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: a GPU if torch finds one, else the CPU."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When the model is evaluated on the complete validation split, and what is shown then."""

    every: int = 250
    """Steps between two evaluations; the last step is always evaluated."""
    rows: int = 64
    """The number of rows (or samples) in one forward pass."""
    generated: int = 256
    """The number of samples for which items are generated for metrics. The samples are spread over those that have an
    item of the task. `chopmix evaluate` generates for all samples."""
    sample_tokens: int = 120
    """The number of tokens of the sample text that each evaluation generates; 0: no sample text."""
    prompt: str = ""
    """The prompt of the sample text of a text corpus; empty: the text begins with the start token."""
    also: dict[str, Callable[..., Evaluator]] = field(default_factory=dict)
    """Further evaluators by name: `{cards: {use: mylab.evaluators:Cards, decks: 3}}`. The name of an evaluator is also
    a key of this section: `attribution: true` means `also: {attribution: {use: attribution}}`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and which checkpoints are kept."""

    every: int = 250
    """Steps between two checkpoints. The run is always saved at the last step, on Ctrl-C and on SIGTERM."""
    keep: int = 2
    """The number of newest checkpoints that are kept in addition to the best."""
    average: int | None = None
    """The number of newest checkpoints that are averaged at the end (Vaswani et al. 2017: 5); null: none."""
    best: str = "val/loss"
    """The metric of the validation split that selects the best checkpoint. Whether the smallest or the largest value is
    best depends on the metric: the smallest `val/loss`, the largest `val/accuracy`."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged during training."""

    every: int = 10
    """Steps between two lines of `metrics.jsonl`."""
    tensorboard: bool = True
    """Whether curves are also written for TensorBoard, to `RUN/tensorboard`."""
    also: dict[str, Callable[..., Logger]] = field(default_factory=dict)
    """Further loggers by name: `{table: {use: mylab.loggers:Table, digits: 3}}`."""


BUILT_IN = ("metrics", "samples")
"""The evaluators of every run, whose options are keys of the section `evaluation`."""


class Short(Choice):
    """Reads the key of an evaluator: false or null as None, true or a mapping of options as the evaluator, any other
    value as the option that `Evaluator.short` names."""

    def __init__(self, registry: Registry, name: str):
        super().__init__(registry)
        self.name = name

    def read(self, value: Any) -> Part | None:
        """The evaluator. Raises ValidationError for unknown, missing or invalid options."""
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
        short = {"type": ["boolean", "null", *["number"] * bool(evaluator.short)]}
        return {"anyOf": [options, short], "description": inspect.getdoc(evaluator)}


class EvaluationRecord(Record):
    """Reads the section `evaluation`: the keys of `Evaluation`, and the names of evaluators, which are added to
    `also`."""

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
        # A run's config.yaml has all evaluators in `also`.
        for name in self.names if isinstance(also, Mapping) else ():
            if name in value and isinstance(also.get(name), Mapping) and isinstance(value[name], Mapping):
                value[name] = {key: option for key, option in also[name].items() if key != "use"} | value[name]
        values = check(self.model, value)
        short = {name: values.pop(name) for name in self.names}
        others = {name: part for name, part in values["also"].items() if name not in value}
        return Evaluation(**values | {"also": others | {name: part for name, part in short.items() if part}})


def _record(target: type) -> Any:
    return Annotated[Any, Record(target.__name__, (target,), target)]


def _model(**options: Any) -> Part:
    return Part(Transformer, options)


def is_tokenizer(candidate: Any) -> bool:
    """Whether an object is a tokenizer class: a subclass of `nn.Module` with an inner class `Chopper`, which is a
    subclass of `Preprocessor`."""
    chopper = getattr(candidate, "Chopper", None)
    both_classes = inspect.isclass(candidate) and inspect.isclass(chopper)
    return both_classes and issubclass(candidate, nn.Module) and issubclass(chopper, Preprocessor)


@functools.cache
def sections() -> Keys:
    """The top level of a YAML: annotation and default of every section (`...`: the section is required)."""
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
