"""The contract of tasks. A task maps a batch to supervised slots (positions in the rows of the batch whose output is
trained) with targets, and the output of its head to loss terms and metrics. A task has no parameters; the parameters
are in its head (`models/heads.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..models.attention.grammar import user_defined_graphs
from ..models.attention.graph import Graph
from ..models.batch import IGNORED, Batch, Targets
from ..models.contract import ContractError, Problems, described
from ..models.generation.beam_search import Search
from ..models.generation.procedure import Procedure
from ..models.generation.refine import Refining
from ..models.generation.sampling import Sampling
from ..models.heads import Head, VocabularyHead
from ..models.model import Model
from ..tokenizers.base import SECONDS, Chopper, Part, Role, position_axes
from .baselines.simple_models import Baseline
from .judging import Judge
from .measuring.report import Reporter


def with_targets(batch: Batch, tasks: Mapping[str, Task]) -> Batch:
    """Returns the batch with the targets of all tasks, in the order of `tasks`. Values that a task hides (masks) are
    hidden for all tasks. Tasks that create inputs (`Needs.makes`) run first."""
    targets = {}
    for name, task in sorted(tasks.items(), key=lambda item: not item[1].needs.makes):
        batch, targets[name] = targets_of(name, task, batch)
    return replace(batch, targets={name: targets[name] for name in tasks})


def with_targets_apart(batch: Batch, tasks: Mapping[str, Task]) -> list[Batch]:
    """Returns one or several copies of the batch, so that values hidden by one task remain visible to the other tasks.
    The first copy has the targets of all tasks that hide nothing or create inputs (`Needs.makes`); it is missing if
    there are no such tasks. Each further copy has the targets of one task that hides values, and only these values are
    hidden. Created inputs are in all copies."""
    together, apart = {}, []
    for name, task in tasks.items():
        if task.needs.makes:
            batch, together[name] = targets_of(name, task, batch)
    for name, task in tasks.items():
        if not task.needs.makes:
            changed, targets = targets_of(name, task, batch)
            if changed is batch:
                together[name] = targets
            else:
                apart.append(replace(changed, targets={name: targets}))
    return [replace(batch, targets=together), *apart] if together else apart


def targets_of(name: str, task: Task, batch: Batch) -> tuple[Batch, Targets]:
    """Returns `task.targets(batch)` of the task named `name`. Raises ContractError if the result is not a tuple (Batch,
    Targets)."""
    result = task.targets(batch)
    is_pair = isinstance(result, tuple) and len(result) == 2
    if is_pair and isinstance(result[0], Batch) and isinstance(result[1], Targets):
        return result
    raise wrong_targets(name, task, result)


def wrong_targets(name: str, task: Task, result: Any) -> ContractError:
    """Returns the error about a result of `Task.targets` that is not a pair (Batch, Targets)."""
    returned = f"({', '.join(map(described, result))})" if isinstance(result, tuple) else described(result)
    return ContractError(
        f"tasks.{name}: {type(task).__name__}.targets returned {returned}; expected: (batch, Targets), the batch, in "
        "which the task may hide values, and the supervised slots with their targets"
    )


def answers_of(name: str, task: Task, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
    """Returns `task.answers(output, targets, batch)`. Raises ContractError if the result is not a sequence with one
    mapping per sample."""
    answers, samples = task.answers(output, targets, batch), batch.first.samples
    if not isinstance(answers, Sequence) or [isinstance(each, Mapping) for each in answers] != [True] * samples:
        returned = f"{len(answers)} values" if isinstance(answers, Sequence) else described(answers)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.answers returned {returned} for {samples} samples; expected: a "
            "dictionary for each sample"
        )
    return list(answers)


def head_of(name: str, task: Task, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
    """Returns `task.head(tokenizers, width)` of the task named `name`. Raises ContractError if the result is not a
    `Head`."""
    head = task.head(tokenizers, width)
    if not isinstance(head, Head):
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.head returned {described(head)}; expected: a chopmix.Head, a torch "
            "module with forward(x, targets)"
        )
    return head


def sampled(name: str, task: Task, model: Model, batch: Batch, how: Procedure) -> list[Any]:
    """Returns `task.sample(model, batch, how)`. Raises ContractError if the result does not have one item for each
    sample."""
    items, count = task.sample(model, batch, how), len(how.streams.generators)
    if not isinstance(items, Sequence) or len(items) != count:
        returned = f"{len(items)} items" if isinstance(items, Sequence) else described(items)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.sample returned {returned}; expected: {count} items, one for each "
            "sample"
        )
    return list(items)


SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""The exceptions that code can raise for a tensor of an unexpected shape."""


def terms_of(name: str, task: Task, head: nn.Module, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
    """Returns `task.terms(output, targets)` of the task named `name`; called if the task or its `head`, which returned
    `output`, is user-defined. Raises ContractError if the output of a vocabulary head has a wrong shape, if `terms`
    fails with one of SHAPE_ERRORS (except lack of memory), or if its result is not a non-empty mapping of names to
    scalar tensors."""
    returned = f"{type(head).__name__} returned {described(output)} for {len(targets.values)} targets"
    if isinstance(head, VocabularyHead) and (output.dim() != 2 or output.shape[1] != len(head.table)):
        raise ContractError(f"tasks.{name}.head: {returned}; expected: ({len(targets.values)}, {len(head.table)}), a "
                            "logit for each id of the vocabulary")  # fmt: skip
    try:
        terms = task.terms(output, targets)
    except torch.OutOfMemoryError:
        raise
    except SHAPE_ERRORS as error:
        raise ContractError(f"tasks.{name}: {type(task).__name__}.terms failed: {returned}; {error}") from error
    is_mapping = isinstance(terms, Mapping)
    if not is_mapping or not terms or not all(isinstance(loss, Tensor) and not loss.dim() for loss in terms.values()):
        shapes = {key: described(loss) for key, loss in terms.items()} if is_mapping else described(terms)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.terms returned {shapes}; expected: losses by name, each a tensor "
            "with one number, the sum over the targets, not their mean"
        )
    return terms


class Metric(NamedTuple):
    """A metric of a split. It is computed from sums over the batches (`of_sums`), from generated and reference texts
    (`of_texts`), from all outputs of the head (`of_outputs`), or by a judge (`of_judge`)."""

    unit: str
    larger_is_better: bool | None = False
    """True: a larger value is better. False: a smaller value is better. None: neither; runs cannot be compared by this
    metric."""
    of_sums: Callable[[Mapping[str, Tensor]], float | None] | None = None
    """Computes the metric from sums over a split, by name: `loss` (the first of `Task.terms`), `count` (the number of
    targets), the sums of `Task.measure`, and `units` (the size of the items, if these are ids). Returns None if a sum
    that the metric needs is missing."""
    of_texts: Callable[[Sequence[str], Sequence[str]], float] | None = None
    """Computes the metric from the generated texts and the reference texts of a split, in the same order."""
    of_outputs: Callable[[Tensor, Tensor], float] | None = None
    """Computes the metric, such as the recall of retrieval, from the head's outputs (float32, on the CPU) and the
    values of all targets of a split. Both tensors have one target per row, in the same, unspecified order. Each process
    keeps them in memory."""
    counted: Callable[[Mapping[str, Tensor]], float] | None = None
    """Computes, from the sums, the number of samples on which the metric is measured. None: all samples with a
    target."""
    of_judge: bool = False
    """Whether one of the task's `judges` computes the metric from the generated items of a split."""
    is_share: bool = False
    """Whether the metric is a share of samples, such as the accuracy: each sample counts 0 or 1. Wilson's formula gives
    the interval of a share (`inference/intervals.py`)."""
    of_chain: bool = False
    """Whether the metric is computed from sums over a subset of the items, whose tokens are predicted one by one, from
    left to right."""

    @property
    def of_generated(self) -> bool:
        """Whether the metric is computed from generated items, by `of_texts` or by a judge."""
        return self.of_texts is not None or self.of_judge

    @property
    def measured_on(self) -> str:
        """The name of the count of samples on which the metric is measured: `judged` (samples with a generated or
        recognised item), `chain_samples` (the subset of `of_chain`), or `samples` (all samples with a target)."""
        return "judged" if self.of_generated else "chain_samples" if self.of_chain else "samples"

    @property
    def in_nats(self) -> bool:
        """Whether the unit begins with `nats`. Differences between values of such a metric can be converted to bits."""
        return self.unit.startswith("nats")


def target_columns(tasks: Mapping[str, Task]) -> list[str]:
    """Returns the data columns with the true values of tasks, each once."""
    return list(dict.fromkeys(column for task in tasks.values() for column in task.needs.columns))


def known_values(values: Tensor) -> Bool[Tensor, "t"]:
    """Returns booleans (t): whether each target has a known value, neither `IGNORED` nor NaN. `values` has one number
    or one row of numbers per target; in a row, one known number is enough."""
    is_known = ~values.isnan() if values.is_floating_point() else values != IGNORED
    return is_known.flatten(1).any(1) if is_known.dim() > 1 else is_known


def per_target(sums: Mapping[str, Tensor], name: str = "loss") -> float:
    """Returns the sum named `name` divided by the number of targets (`count`, at least 1)."""
    return float(sums[name] / sums["count"].clamp(min=1))


def metrics_of(judges: Mapping[str, Judge]) -> dict[str, Metric]:
    """Returns the metrics that judges compute, by name."""
    return {
        name + suffix: Metric(figure.unit, figure.larger_is_better, of_judge=True)
        for name, judge in judges.items()
        for suffix, figure in judge.figures.items()
    }


LOSS = Metric("nats per target", of_sums=per_target)


def figures(metrics: Mapping[str, Metric], sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the values, by name, of the metrics that have `of_sums` and for which it does not return None."""
    values = {name: metric.of_sums(sums) for name, metric in metrics.items() if metric.of_sums}
    return {name: value for name, value in values.items() if value is not None}


@runtime_checkable
class TrainingColumns(Protocol):
    """The training data for `Task.fit`. It is read one or two columns at a time."""

    def __len__(self) -> int:
        """The number of samples."""

    def column(self, name: str) -> Iterator[Any]:
        """Yields the values of one column, in the order of the samples. Samples without a value are skipped."""

    def items(self, name: str) -> Iterator[Any]:
        """Yields the values of one input before they are decoded, in the order of the samples. Samples without a value
        are skipped."""

    def pairs(self, input: str, column: str) -> Iterator[tuple[Any, Any]]:
        """Yields the value of one input, before it is decoded, and of one data column of each sample that has both, in
        the order of the samples."""

    def say(self, text: str) -> None:
        """Print a remark about the data to the user."""


def whole_context(context: int, encoder_context: int) -> int:
    """Returns `context`, the context length of the core. Default of `Needs.window`: a corpus is read in windows of this
    length."""
    return context


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The requirements of a task. They depend only on the options of the task, not on data or a model. In the fields
    below, "the task" is the task that has these requirements."""

    columns: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """The data columns that the task reads, by name, each with a function that raises DataError for a value that cannot
    be a target; its result is not used, the task receives the value as it is. A sample with such a value counts as
    bad."""
    inputs: tuple[str, ...] = ()
    """The inputs that contain the target, or from which the task reads the answer (CTC). Input dropout never drops
    these inputs, unless the task `refines`."""
    supervised_at: tuple[str, ...] = ()
    """Further inputs that the targets are computed from: the supervised slots are at their tokens, or the targets are
    relative to their values. Input dropout never drops them, unless `at_is_optional`."""
    at_is_optional: bool = False
    """Whether a sample without the inputs `supervised_at` only has no target. Input dropout may then drop them if
    another task reads the sample without them."""
    makes: tuple[str, ...] = ()
    """The inputs that the task creates from other inputs. No data set contains them."""
    generates: bool = False
    """Whether the task generates the item of its target, token by token."""
    refines: bool = False
    """Whether the task generates the item of its target by its own procedure (`Task.sample`), such as the refinement of
    a draft. Input dropout may then drop the inputs of the task; for example, one of two inputs can be generated from
    the other. A sample without the target input has no target."""
    scalars: tuple[str, ...] = ()
    """The inputs for which the task sets `Chunks.scalars`, one number for each item, such as the time of a flow."""
    compared: tuple[str, ...] = ()
    """Further data columns with which its judges compare generated items."""
    encoder: bool = False
    """Whether the model needs an encoder, whose output the text of the task reads by cross-attention."""
    hides: str = ""
    """How the task hides the target in the input that contains it, for messages: `shifted`, `masked`, `denoised`,
    `quantised`, `noised`. Empty: the target is not hidden, so no input may read the target column."""
    special_ids: tuple[str, ...] = ()
    """The names (roles) of the special ids that the encoding of the inputs must have for this task, such as `mask`."""
    whole_batch: bool = False
    """Whether the loss compares all samples of a global batch with each other. In training, `Task.terms` then receives
    the outputs and targets of all micro-batches and processes, concatenated along the first axis, in no particular
    order; only `values`, `weights`, `extra` and `count` of these targets are set. In an evaluation, `Task.terms`
    receives one batch at a time."""
    window: Callable[[int, int], int] = whole_context
    """Returns the number of tokens in a window of a corpus. Its arguments are the context lengths of the core and of
    the encoder, in tokens; the second is 0 without an encoder."""
    prediction_choppers: Mapping[str, Callable[[Chopper], Chopper]] = field(default_factory=dict)
    """A function for each input in the mapping: it receives the chopper of the input and returns the chopper for
    `predict`. That chopper can, for example, read marks in a text as masks."""

    @property
    def makes_items(self) -> bool:
        """Whether the task generates items, token by token or by its own procedure."""
        return self.generates or self.refines


class Task:
    """Base class of all tasks."""

    after_training: ClassVar[tuple[str, ...]] = ()
    """The options that can be changed when a finished run is loaded: `evaluate RUN tasks.NAME.OPTION=VALUE`. They must
    not change the parameters. Heads and tokenizers may have this attribute too."""
    target: str
    """The input or data column that the task predicts."""
    weight: float = 1.0
    """The factor of its loss in the sum of the losses of all tasks."""
    search: Search = Search()
    """The search algorithm for tasks that generate or recognise texts."""
    refining: Refining = Refining()
    """The steps of `sample`."""
    sampling: Sampling | None = None
    """The settings with which generated items are drawn at random; None: those of the way of generation."""
    guidance: float = 1.0
    """The weight of classifier-free guidance in generation; 1: no guidance."""
    texts: Sequence[str] = ()
    """The names of the configured metrics of generated or recognised texts, such as `wer`."""
    vectors: Sequence[str] = ()
    """The keys of an answer whose lists have the same length for all samples. A table has one column per number."""
    true_vectors: Sequence[str] = ()
    """The same for the true values of the first data column (see `as_answer`); an empty text is the value itself."""
    calibrates: bool = False
    """Whether the task predicts one class, whose probabilities can be calibrated and compared with a threshold."""
    horizon: int | None = None
    """The number of steps after the end of a stream that the task forecasts; None: the task forecasts nothing."""
    judges: Mapping[str, Judge] = {}
    """The judges of generated items, by the names of their metrics."""
    choppers: Mapping[str, Chopper] = {}
    """The choppers of all inputs, by input name, with the encodings of texts. Set after the choppers are fitted."""
    Learned: ClassVar[Any] = None
    """The pydantic model that `fit` returns; None: the task learns nothing in `fit`. A run saves it as
    `assets/task-NAME/CLASS.json` (CLASS is the name of the model in lower case), so it can be loaded without the
    data."""
    learned: Any = None
    """The result of `fit`."""
    for_prediction: bool = False
    """Whether the task is used for `predict` instead of training or evaluation. The task then hides nothing."""

    @property
    def needs(self) -> Needs:
        """The requirements of the task."""
        raise NotImplementedError

    def problems(self, name: str, wiring: Wiring) -> Problems:
        """Yields the problems (path, message) of a configuration in which this task has the name `name`."""
        yield from ()

    def fit(self, data: TrainingColumns) -> Any:
        """Returns an instance of `Learned` with what the task learns from the targets of the training data (their
        classes, their mean). The default returns None. Raises DataError if the data are not sufficient."""
        return None

    def as_answer(self, value: Any) -> Any:
        """Returns a value of the target column in the form of an answer: the text `"3"`, the name of a folder, as the
        class 3. The default returns the value unchanged."""
        return value

    def check_answer(self, text: str) -> None:
        """Raises ValueError if the task cannot return this text as an answer. The default accepts all texts."""

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
        """Returns the head, which maps vectors of the model's `width` to the output of this task. The head becomes a
        part of the `Model`. `tokenizers` contains the embedder of each input, by input name."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns (batch, targets): the batch as the model reads it, and the targets with their slots, the token
        positions at which the head predicts them. The task may hide values in this batch, such as masked words; random
        choices depend only on the seeds of the samples. The method is called on the CPU, before the embedding.

        Every input, also the target of the task, can be absent from a sample or from all samples of a batch. In the
        second case it is not in `chunks`. Samples without the target have no targets.
        """
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Returns the loss terms of one micro-batch by name. Each term is a scalar, the sum over the targets, not their
        mean. The first term is reported as `loss`; training minimises the sum of all terms. Training divides the sums
        by the number of targets in the *global* batch. The loss therefore does not depend on gradient accumulation, the
        number of processes, or how the targets are distributed over micro-batches."""
        raise NotImplementedError

    def chance(self) -> float | None:
        """Returns the loss per target of a uniform guess, such as the logarithm of the number of classes, without the
        task's weight. The default returns None: unknown."""
        return None

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        """Returns booleans (s): whether each sample of the batch has a target; for a stream, whether each row has one.
        By default, a sample has a target if `Targets.lengths` is not negative for it or, without `lengths`, if one of
        its supervised slots has a value that is neither `IGNORED` nor NaN."""
        if targets.lengths is not None:
            return targets.lengths >= 0
        planned = batch.set_of(targets)
        rows, n = planned.tokens.shape
        owner = planned.tokens.sample.flatten() - 1 if planned.samples else torch.arange(rows).repeat_interleave(n)
        owner = owner if targets.slots is None else owner[targets.slots]
        is_known = known_values(targets.values)
        if targets.groups is not None and len(is_known) != len(owner):
            is_known = is_known[targets.groups]
        has_target = torch.zeros(planned.samples or rows, dtype=torch.bool)
        has_target[owner[is_known]] = True
        return has_target

    def measure(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Returns sums over the targets of one micro-batch, by name. The evaluation adds them up over a split and
        passes them to `Metric.of_sums`."""
        return {}

    def losses(self, output: Tensor, targets: Targets) -> Tensor:
        """Returns the loss of each target (j), without label smoothing, for the output and the targets of one sample.
        Slots without a target are left out. The default returns one number, the loss of the sample."""
        sums = {"loss": next(iter(self.terms(output, targets).values())), **self.measure(output, targets)}
        return sums.get("nats", sums["loss"]).reshape(1)

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of an evaluation by name, `loss` first."""
        return {"loss": LOSS}

    def summary(self, values: Sequence[Any]) -> str:
        """Returns a short description of the values of the task's first data column, which is printed before training,
        such as `28 circle, 26 square, 6 triangle`. The default returns an empty text."""
        return ""

    def imbalance(self, values: Iterable[Any]) -> str:
        """Returns a sentence without a full stop if the classes in the values of the target column (of all training
        samples) have very different numbers of samples. The default returns an empty text."""
        return ""

    @property
    def headline(self) -> str:
        """The metric in which a run is compared with simple models."""
        return "loss"

    @property
    def baselines(self) -> Sequence[Baseline]:
        """The simple models with which a run is compared (`chopmix baselines`). The default returns none."""
        return ()

    def baseline_features(self, items: Mapping[str, Any]) -> dict[str, np.ndarray | str]:
        """Returns what the baselines read of a sample, by input. `items` are the decoded items by input. The default
        returns `Chopper.simple_features` of each input that has them."""
        features = {name: self.choppers[name].simple_features(item) for name, item in items.items()}
        return {name: feature for name, feature in features.items() if feature is not None}

    def baseline_target(self, targets: Targets) -> Any:
        """Returns what the baselines predict for a sample, from its targets. The default returns their only value."""
        return targets.values[0].numpy()

    def baseline_output(self, prediction: Any, targets: Targets) -> Tensor:
        """Returns the prediction of a baseline for a sample as the output of the task's head. `targets` are those of
        the sample; their true values must not change the prediction. The default returns a row with it."""
        return torch.as_tensor(prediction, dtype=torch.float32)[None]

    def rare(self, values: Iterable[Any]) -> str:
        """Returns a sentence without a full stop if the values of the target column (of all validation samples) have
        very few samples of a class. The default returns an empty text."""
        return ""

    def reporter(self) -> Reporter | None:
        """Returns an object that collects the answers of a split for a report. The default returns None: there is no
        report."""
        return None

    def calibrated(self, answer: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
        """Returns an answer with calibrated probabilities. `saved` contains the values that the report on the
        validation split stored (`Section.saved`). The default returns the answer unchanged."""
        return dict(answer)

    def blank(self, true: Any, count: int | None) -> Any:
        """Returns the item of the target with which `sample` begins, such as masks instead of all ids. `true`: the true
        item, which determines only the number of tokens; None: unknown. `count`: the number of tokens that the user
        has set. Raises ValueError if the number of tokens remains unknown."""
        raise NotImplementedError

    def sample(self, model: Model, batch: Batch, how: Procedure) -> list[Any]:
        """Returns a generated item for each sample of a batch, in order; called for tasks that `refines`. The batch
        contains the results of `blank`, and is on the CPU without layouts (`Model.plan`)."""
        raise NotImplementedError

    def restore(self, item: Any) -> Any:
        """Returns what a generated item stands for, such as the text of ids. Raises ValueError if it is incomplete. The
        default returns the item unchanged."""
        return item

    def picture(self, item: Any) -> Tensor:
        """Returns a picture (c, h, w), uint8, of a state that `sample` shows, for animations. Raises ValueError by
        default."""
        raise ValueError(f"items of {self.target!r} cannot be drawn")

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns one dictionary per sample of the batch, in order, whose values can be written as JSON: {"class":
        "cat", ...}. Recognised text has the key `text`. If there is no answer, the key `error` gives the reason, such
        as an absent input."""
        raise NotImplementedError


def prediction_copy(task: Task) -> Task:
    """Returns a copy of the task for `predict`; the copy hides nothing."""
    task = copy(task)
    task.for_prediction = True
    return task


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Facts about a configuration that depend neither on data nor on a model.

    For an image that is encoded, and its caption that is generated:

        columns    {"image": "image", "caption": "text"}     `data.columns` maps caption to text
        owners     {"image": "image", "caption": "caption"}
        generated  ("caption",)
        encoded    ("image",)
        axes       ("order", "row", "column")
    """

    inputs: Mapping[str, Part]
    """The tokenizer of each input, with its options."""
    model: Mapping[str, Any]
    """The options of the model."""
    graphs: Mapping[str, Graph]
    """The attention graphs of the main core, by the expressions that define them. Expressions that cannot be parsed are
    absent."""
    order: str
    """The order of a sample's tokens, `data.order`: `inputs` or `seconds`."""
    optional: frozenset[str]
    """The inputs that training drops from some samples (`training.input_dropout`)."""
    tasks: Mapping[str, Task]
    """The tasks, by name, before they are fitted. Do not fit these objects, but copies (`copy.deepcopy`)."""
    needs: Mapping[str, Needs]
    """The requirements of each task."""
    columns: Mapping[str, str]
    """The data column that each input reads, by input name."""
    owners: Mapping[str, str]
    """By input name, the input whose tokenizer is used: the input itself, or the input in its option `same_as`."""
    types: Mapping[str, str]
    """By input name, another input whose type embedding is used: the option `type` next to `same_as`."""
    roles: Mapping[str, Role]
    """By input name, whether a task generates the input, and which special ids the tasks need in its encoding."""
    generated: tuple[str, ...]
    """The inputs that tasks generate token by token."""
    encoded: tuple[str, ...]
    """The inputs that the encoder reads; empty if there is no encoder."""
    axes: tuple[str, ...]
    """The position axes of a set that contains all inputs: `order`, then the axes of the tokenizers, without
    duplicates."""

    def sharing(self, owner: str) -> list[str]:
        """Returns the names of the inputs that use the tokenizer of the input `owner`, including `owner`."""
        return [name for name in self.owners if self.owners[name] == owner]

    @property
    def in_time(self) -> list[str]:
        """The inputs whose tokens have a position in seconds."""
        return [name for name, part in self.inputs.items() if SECONDS in position_axes({name: part})]

    @property
    def ahead(self) -> frozenset[str]:
        """The names of the inputs whose tokens can be read, in some layer, by tokens of an earlier time. A user-defined
        graph without `Graph.ahead`, and an expression that cannot be parsed, add no inputs."""
        names, ahead = list(self.inputs), set[str]()
        for text, graph in self.graphs.items():
            axes = (0, *(self.axes.index(axis) for axis in self.axes if axis == SECONDS))
            bounds = [graph.ahead(axis) for axis in axes]
            sets = [{names[number - 1] for number in bound if number} for bound in bounds if bound is not None]
            ahead |= min(sets, key=len) if sets else set(() if user_defined_graphs(text) else names)
        return frozenset(ahead)

    @property
    def kept(self) -> frozenset[str]:
        """The inputs that input dropout never drops (see `Needs`)."""
        kept = set[str]()
        needs = [each for each in self.needs.values() if not each.refines]
        for each in needs:
            others = [{*other.inputs, *other.supervised_at} for other in self.needs.values() if other is not each]
            optional = {n for n in each.supervised_at if each.at_is_optional and any(n not in of for of in others)}
            kept |= {*each.inputs, *each.supervised_at} - (optional - {*each.inputs})
        return frozenset(kept)

    @property
    def made(self) -> set[str]:
        """The inputs that tasks create from other inputs (`Needs.makes`)."""
        return {name for needs in self.needs.values() for name in needs.makes}
