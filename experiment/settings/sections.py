"""The sections of a YAML file (`data:`, `training:`, ...) as dataclasses, and the readers of these sections."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from ...data.base import Dataset
from ...data.division import Division
from ...inference.evaluator import Evaluator
from ...models.model import Model
from ...models.transformer import Transformer
from ...tasks.base import Task
from ...tokenizers.base import Part, Preprocessor
from ...training.adapters import Adapters
from ...training.early_stop import EarlyStop
from ...training.logger import Logger
from ...training.mixup import Mixup
from ...training.optimizers import AdamW, Optimizer
from ...training.schedules import Cosine, Schedule
from .hints import shown
from .registry import Folder, Registry, folder_of, registry_of
from .schema import Choice, Keys, Record, check, json_of, keys_of, model_of, model_of_part, number, problem

Count = Annotated[int, Field(ge=1, le=2**40)]
"""A number of steps, tokens, samples or checkpoints."""
Rows = Annotated[int, Field(ge=1, le=2**20)]
"""A number of rows or samples in a step."""
CountOrZero = Annotated[int, Field(ge=0, le=2**40)]
"""A number of items that may be 0."""
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set that is read, and the treatment of its samples."""

    dataset: Callable[[], Dataset] | None = None
    """The data set: a name (a file of `data/datasets/`), or `{use: NAME, ...}` with options. Required, except in a run
    that `chopmix import` wrote."""
    columns: dict[str, str | list[str]] = field(default_factory=dict)
    """The column of the data set that an input reads, by input name: `{camera: image}`. A sensor can read several
    columns as its channels: `{motion: [x, y, z]}`. An input that is not listed reads the column that has the name of
    the input."""

    def column(self, name: str) -> str:
        """Returns the data column of the input `name`. Several columns are joined to a column with the name of the
        input."""
        column = self.columns.get(name, name)
        return column if isinstance(column, str) else name

    split: Division | None = None
    """The division of the samples into train, val and test, for a data set without separate files for val and test:
    `{val: 0.1, test: 0.1, stratify: label, group: speaker}`. null: a tenth of train is used for validation, selected by
    the hash of the keys, unless the data set has its own val split."""
    balance: str | None = None
    """A column of classes, all of which training draws with the same probability, with replacement. null: every sample
    is read once per epoch."""
    workers: Literal["auto"] | int = "auto"
    """The number of processes that read and chop the samples of this process ahead of time; 0: a thread reads them.
    `auto`: one less than the number of cores (at most 16), but 0 if reading takes little time or the samples fit into
    memory. The number changes no result."""
    bad_share: float = 0.0
    """The largest share of bad samples, from 0 to 1. A sample is bad if it cannot be read, or if a task rejects its
    target. If the share of bad samples is larger, the run stops."""
    too_long: Literal["refuse", "drop"] = "refuse"
    """The treatment of a sample with more tokens than `model.context`. `refuse`: the sample is bad; `drop`: inputs of
    the sample are dropped, beginning with the last, until the sample fits, and are counted. Inputs that a task predicts
    are not dropped."""
    order: Literal["inputs", "seconds"] = "inputs"
    """The order of the tokens in a sample. `inputs`: input by input, in the order of the YAML; `seconds`: by the time
    of the tokens. With `seconds` and the attention `causal`, no token attends to a token of a later time."""
    documents: Literal["joined", "separate"] = "joined"
    """For a text corpus. `joined`: all documents form one stream of tokens; a row is a window of this stream and counts
    as one sample. `separate`: every document in a row is a separate sample; with the attention `same_sample`, the
    tokens of a document attend only to tokens of this document."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the model is trained. A step is one update of the weights, from `tokens_per_step` tokens or
    `samples_per_step` samples in total over all processes."""

    steps: Count | None = None
    """The total number of updates."""
    minutes: Annotated[float, Field(gt=0, le=1e7)] | None = None
    """A time limit in minutes that replaces `steps`. At the start some steps are timed, and the time limit is converted
    to a number of steps."""
    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """The number of epochs, which replaces `steps`. One epoch has as many samples (for a text corpus: windows) as the
    training split."""
    stop: EarlyStop | None = None
    """Early stopping: `{metric: val/loss, patience: 5}` ends the training if the metric does not improve in 5
    evaluations in a row. null: the training ends at the last step."""
    tokens_per_step: Count | None = None
    """The number of tokens in one update. For a text corpus: a multiple of `model.context`. For a data set of samples:
    the largest number of tokens, including padding; the samples of an update then have similar lengths."""
    samples_per_step: Rows | None = None
    """The number of samples in one update. Not for a text corpus."""
    learning_rate: Positive | None = None
    """The peak learning rate of the main group of parameters (AdamW: all parameters; Muon: the matrices). Muon
    multiplies this rate by a factor for each of its other groups. null: the optimizer's default, 1e-3 for AdamW, 0.02
    for Muon."""
    optimizer: Callable[..., Optimizer] = AdamW
    """`adamw` or `muon`, or `{use: NAME, ...}` with options."""
    schedule: Callable[..., Schedule] = Cosine
    """The schedule of the learning rate over the steps: a name, or `{use: cosine, warmup: 100, ...}`."""
    clip: Positive | None = 1.0
    """The largest norm of the gradient of all parameters; a larger gradient is scaled down to this norm. null: no
    clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The decay per step, above 0 and below 1, of an exponential moving average of the weights. The averaged weights
    are used for evaluation, the best checkpoint and export. null: not used."""
    precision: Literal["auto", "fast", "float32", "bfloat16"] = "auto"
    """The precision of matrix products; weights stay float32. `auto`: bfloat16 on a GPU that supports bfloat16, and on
    a CPU with bfloat16 instructions if the model is so wide that bfloat16 is faster; else float32. `fast`: as `auto`,
    but on such a CPU always bfloat16."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile compiles the model. `auto`: only on a GPU and for at least 1,000 steps."""
    input_dropout: float | dict[str, float] | Literal["any_number"] = 0.0
    """The share of training samples from which an input is dropped, at least 0 and below 1: one share for all inputs,
    or one share per input: `{image: 0.3, ...}`. `any_number`: the number of inputs that are dropped from a sample is
    random, with equal probability for each number, so the model can be evaluated with every subset of the inputs.
    Inputs that a task predicts are never dropped. If more than one input can be dropped, at least one of them is kept,
    except in about one of 100 samples."""
    mixup: Mixup | None = None
    """Mixup and CutMix for images, Mixup for sounds; null: samples are not mixed."""
    freeze: list[str] = field(default_factory=list)
    """The parameters that are not trained. An entry selects every parameter whose dotted name contains the entry as
    whole components: `tokenizers.image`, `attention`, `cores.main.blocks.0`. An entry `role:embedding` selects all
    parameters of this role."""
    train_only: list[str] = field(default_factory=list)
    """The only parameters that are trained, with entries as for `freeze`, such as `adapter`; empty: all parameters."""
    adapters: Adapters | None = None
    """Low-rank adapters (LoRA): only small matrices are trained, which are added to the weights that `from:` copies:
    `{rank: 8, on: [query, value]}`. `train_only` selects further parameters, such as new heads. null: no adapters."""
    rows_per_micro_batch: Rows | None = None
    """The number of rows (or samples) in one forward pass of a process; null: all rows of the process in a step. A
    smaller number saves memory and changes only the random values of dropout."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """The seed of the initial weights, of the order of the samples, of dropout and of augmentation."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device for training. `auto`: a GPU if torch finds one, else the CPU."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """When the model is evaluated on the validation split, and what an evaluation prints."""

    every: Count | None = None
    """The number of steps between two evaluations; null: 250, or in a run of less than 2,000 steps a sixth to a tenth
    of the steps, at least 10. The model is always evaluated at the last step."""
    rows: Count = 64
    """The number of rows (or samples) in one forward pass."""
    generated: CountOrZero = 256
    """The number of samples for which an evaluation generates items, to compute the metrics of generated items. The
    samples are spread evenly over the samples that have an item of the task. `chopmix evaluate` generates items for all
    samples."""
    report: bool = True
    """Whether a report on the validation split is written after training, to `RUN/report`: tables of classes, errors
    and calibration, pictures, and the worst answers."""
    sample_tokens: CountOrZero = 120
    """The number of tokens of the sample text that each evaluation generates; 0: no sample text."""
    prompt: str = ""
    """For a text corpus, the beginning of the sample text; empty: the text begins with the start token."""
    also: dict[str, Callable[..., Evaluator]] = field(default_factory=dict)
    """Further evaluators by name: `{cards: {use: mylab.evaluators:Cards, decks: 3}}`. The name of an evaluator of
    chopmix can also be a key of the section `evaluation`: `attribution: true` means
    `also: {attribution: {use: attribution}}`."""


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """When the run is saved, and which checkpoints are kept."""

    every: Count = 250
    """The number of steps between two checkpoints. The run is always saved at the last step, on Ctrl-C and on
    SIGTERM."""
    keep: Count = 2
    """The number of the newest checkpoints that are kept. The best checkpoint is kept in addition."""
    average: Count | None = None
    """The number of the newest checkpoints whose weights are averaged after the last step (5 in Vaswani et al. 2017);
    null: not used."""
    best: str | None = "val/loss"
    """The metric of the validation split that selects the best checkpoint. Each metric determines whether its smallest
    or its largest value is best: the smallest `val/loss`, the largest `val/accuracy`. null: no checkpoint is selected;
    the last one is the result of the training."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged during training."""

    every: Count = 10
    """The number of steps between two lines of `metrics.jsonl`. The terminal shows fewer of them."""
    tensorboard: bool = True
    """Whether the metrics are also written for TensorBoard, to `RUN/tensorboard`."""
    also: dict[str, Callable[..., Logger]] = field(default_factory=dict)
    """Further loggers by name: `{table: {use: mylab.loggers:Table, digits: 3}}`."""


BUILT_IN = ("metrics", "report", "samples")
"""The evaluators of every run. Their options are keys of the section `evaluation`."""


class Short(Choice):
    """Reads the key of the section `evaluation` that has the name of an evaluator. false, null and 0 are read as None;
    true or a mapping of options as the evaluator; any other value as the evaluator with this value for the option that
    `Evaluator.short` names."""

    def __init__(self, registry: Registry, name: str):
        super().__init__(registry)
        self.name = name

    def read(self, value: Any) -> Part | None:
        """Returns the evaluator as a `Part`, or None for false, null and 0. Raises ValidationError for unknown, missing
        or invalid options, and for another value if the evaluator has no `short`."""
        if value is None or value is False or number(value) == 0:
            return None
        return self._read_options(value)

    def _read_options(self, value: Any) -> Part:
        if value is True or isinstance(value, Mapping):
            return Choice.read(self, {"use": self.name} | (dict(value) if isinstance(value, Mapping) else {}))
        _, evaluator = self.registry.find(self.name)
        if not evaluator.short:
            raise problem(f"must be true, false or a mapping of options, not {shown(value)}")
        return Choice.read(self, {"use": self.name, evaluator.short: value})

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        _, evaluator = self.registry.find(self.name)
        options = json_of(model_of_part(evaluator), (evaluator,), handler)
        short = {"type": ["boolean", "null", *["number"] * bool(evaluator.short)]}
        return {"anyOf": [options, short], "description": inspect.getdoc(evaluator)}


class EvaluationRecord(Record):
    """Reads the section `evaluation`. Its keys are those of `Evaluation` and the names of evaluators; these evaluators
    are added to `also`."""

    def __init__(self, registry: Registry):
        super().__init__("Evaluation", (Evaluation,), Evaluation)
        self.evaluators = registry
        self.names = [name for name in registry.stems() if name not in BUILT_IN]

    @functools.cached_property
    def model(self) -> Any:
        short = {name: (Annotated[Any, Short(self.evaluators, name)], None) for name in self.names}
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
    """Returns whether an object is a tokenizer class: a subclass of `nn.Module` with an inner class `Chopper` that is a
    subclass of `Preprocessor`."""
    chopper = getattr(candidate, "Chopper", None)
    both_classes = inspect.isclass(candidate) and inspect.isclass(chopper)
    return both_classes and issubclass(candidate, nn.Module) and issubclass(chopper, Preprocessor)


@functools.cache
def sections() -> Keys:
    """Returns the annotation and the default of every section of a YAML, by name. The default `...` means that the
    section is required."""
    tokenizers = Folder("tokenizers", "torch.nn.Module with a class Chopper", is_tokenizer)
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
