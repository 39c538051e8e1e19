"""The contract of tasks. A task maps a batch to supervised slots with targets, and the output of its head to loss terms
and metrics. It has no parameters; these are in its head (`models/heads.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ..models.attention.grammar import user_defined_graphs
from ..models.attention.graph import Graph
from ..models.batch import IGNORED, Batch, Targets
from ..models.contract import ContractError, described
from ..models.generation.beam_search import Search
from ..models.heads import Head, VocabularyHead
from ..tokenizers.base import SECONDS, Chopper, Part, Role, position_axes
from .judging import Judge


def with_targets(batch: Batch, tasks: Mapping[str, Task]) -> Batch:
    """Returns the batch with the targets of all tasks. Values that a task hides (masks) are hidden in it. Tasks that
    create inputs (`Needs.makes`) run first."""
    targets = {}
    for name, task in sorted(tasks.items(), key=lambda item: not item[1].needs.makes):
        batch, targets[name] = targets_of(name, task, batch)
    return replace(batch, targets={name: targets[name] for name in tasks})


def with_targets_apart(batch: Batch, tasks: Mapping[str, Task]) -> list[Batch]:
    """Returns several copies of the batch, so that values hidden by one task are not hidden from others. The first copy
    has the targets of all tasks that do not change the batch. Each other copy has the targets of one task, and the
    values that it hides are hidden. Inputs that tasks create (`Needs.makes`) are in all copies."""
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
    """Returns `task.targets(batch)` of the task `name`. Raises ContractError if it is not (Batch, Targets)."""
    result = task.targets(batch)
    is_pair = isinstance(result, tuple) and len(result) == 2
    if is_pair and isinstance(result[0], Batch) and isinstance(result[1], Targets):
        return result
    returned = f"({', '.join(map(described, result))})" if isinstance(result, tuple) else described(result)
    raise ContractError(
        f"tasks.{name}: {type(task).__name__}.targets returned {returned}; expected: (batch, Targets), the batch, in "
        "which the task may hide values, and the supervised slots with their targets"
    )


def answers_of(name: str, task: Task, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
    """Returns `task.answers(output, targets, batch)`. Raises ContractError unless it is one dictionary per sample."""
    answers, samples = task.answers(output, targets, batch), batch.first.samples
    if not isinstance(answers, Sequence) or [isinstance(each, Mapping) for each in answers] != [True] * samples:
        returned = f"{len(answers)} values" if isinstance(answers, Sequence) else described(answers)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.answers returned {returned} for {samples} samples; expected: a "
            "dictionary for each sample"
        )
    return list(answers)


def head_of(name: str, task: Task, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
    """Returns `task.head(tokenizers, width)` of the task `name`. Raises ContractError if it is not a `Head`."""
    head = task.head(tokenizers, width)
    if not isinstance(head, Head):
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.head returned {described(head)}; expected: a chopmix.Head, a torch "
            "module with forward(x, targets)"
        )
    return head


SHAPE_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""The exceptions that code can raise for a tensor of an unexpected shape."""


def terms_of(name: str, task: Task, head: nn.Module, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
    """Returns `task.terms(output, targets)` of the task `name`, for a user-defined task or `head` (which returned
    `output`). Raises ContractError if the task cannot process the output, or if its terms are not scalars by name."""
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
    """A metric of a complete split, computed from sums over its batches, from generated and reference texts, or from
    all outputs."""

    unit: str
    larger_is_better: bool | None = False
    """None: runs cannot be compared by it."""
    of_sums: Callable[[Mapping[str, Tensor]], float | None] | None = None
    """Computes it from the sums over a split: `loss` (the first of `Task.terms`), `count` (of targets), the sums of
    `Task.measure`, and for items that are ids their size in `units`. Returns None if a sum is missing."""
    of_texts: Callable[[Sequence[str], Sequence[str]], float] | None = None
    """Computes it from the generated texts and the references of a split, in the same order."""
    of_outputs: Callable[[Tensor, Tensor], float] | None = None
    """Computes it, such as the recall of retrieval, from the head's outputs (float32, on the CPU) and the values of all
    targets of a split, along the first axis, in no particular order. Each process keeps them in memory."""
    counted: Callable[[Mapping[str, Tensor]], float] | None = None
    """Computes from the sums on how many samples it is measured; None: on all samples with a target."""
    of_judge: bool = False
    """Whether one of the task's `judges` computes it from the generated items of a split."""
    of_chain: bool = False
    """Whether it is computed from sums over some items whose tokens are predicted one by one, from left to right."""

    @property
    def of_generated(self) -> bool:
        """Whether it is computed from generated items."""
        return self.of_texts is not None or self.of_judge

    @property
    def measured_on(self) -> str:
        """The name of the count of samples on which it is measured: `judged` (generated or recognised items),
        `chain_samples`, or `samples` (all samples with a target)."""
        return "judged" if self.of_generated else "chain_samples" if self.of_chain else "samples"

    @property
    def in_nats(self) -> bool:
        """Whether its unit is nats, so that the difference of two values can be converted to bits."""
        return self.unit.startswith("nats")


def known_values(values: Tensor) -> Bool[Tensor, "t"]:
    """Whether each target, a number or a row of numbers, has a value that is neither `IGNORED` nor NaN."""
    is_known = ~values.isnan() if values.is_floating_point() else values != IGNORED
    return is_known.flatten(1).any(1) if is_known.dim() > 1 else is_known


def per_target(sums: Mapping[str, Tensor], name: str = "loss") -> float:
    """Returns the sum named `name` divided by the number of targets."""
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
    """Returns the metrics that can be computed from these sums over a split, by name."""
    values = {name: metric.of_sums(sums) for name, metric in metrics.items() if metric.of_sums}
    return {name: value for name, value in values.items() if value is not None}


@runtime_checkable
class TrainingColumns(Protocol):
    """The training data for `Task.fit`: one column at a time."""

    def __len__(self) -> int:
        """The number of samples."""

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, in order, without samples that have no value."""

    def items(self, name: str) -> Iterator[Any]:
        """The raw values of one input, in order, without samples that have no value."""

    def say(self, text: str) -> None:
        """Print a remark about the data to the user."""


def whole_context(context: int, encoder_context: int) -> int:
    """`Needs.window` of most tasks: a corpus is read in windows of the core's context length."""
    return context


@dataclass(frozen=True, kw_only=True)
class Needs:
    """The requirements of a task. They depend on its options only, not on data or a model."""

    columns: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """The data columns that it reads, each with a function that raises DataError for a value that cannot be a target.
    Such samples count as bad."""
    inputs: tuple[str, ...] = ()
    """The inputs that contain its target, or from which it reads the answer (CTC). Input dropout never drops them,
    unless the task `refines`."""
    supervised_at: tuple[str, ...] = ()
    """Further inputs that input dropout never drops, because the supervised slots are at their tokens."""
    makes: tuple[str, ...] = ()
    """The inputs that it creates from other inputs. No data set has them."""
    generates: bool = False
    """Whether it generates the item of its target, token by token."""
    refines: bool = False
    """Whether it generates the item of its target by refining a draft (`models/generation/refine.py`). Input dropout
    may drop its inputs, for example if one input is generated from another. A sample without them has no target."""
    compared: tuple[str, ...] = ()
    """Further data columns with which its judges compare generated items."""
    encoder: bool = False
    """Whether it needs an encoder, to whose output its text attends by cross-attention."""
    hides: str = ""
    """How it hides the target in the input that contains it, for messages: `shifted`, `masked`, `denoised`. Empty: it
    does not hide it, so that no input may read the target column."""
    special_ids: tuple[str, ...] = ()
    """Roles of the special ids that it needs in the encoding of its inputs, such as `mask`."""
    whole_batch: bool = False
    """Whether its loss compares all samples of a global batch with each other. `Task.terms` then receives the outputs
    and targets of all micro-batches and processes, concatenated along the first axis, in no particular order. Of the
    targets only `values`, `weights` and `count` are set. During evaluation it receives one batch at a time."""
    window: Callable[[int, int], int] = whole_context
    """Maps the context lengths of the core and of the encoder (0: none) to the number of tokens in a window of a
    corpus."""
    asked: Mapping[str, Callable[[Chopper], Chopper]] = field(default_factory=dict)
    """By input, a function from its chopper to the chopper for `predict`, which for example reads marks in a text as
    masks."""


Problems = Iterator[tuple[tuple[str | int, ...], str]]
"""Problems of a configuration: the path in the YAML, such as `("inputs", "image", "size")`, and a message."""


class Task:
    """Base of all tasks."""

    target: str
    """The input or data column that it predicts."""
    weight: float = 1.0
    """The factor of its loss in the sum of the losses of all tasks."""
    search: Search = Search()
    """The search algorithm for tasks that generate or recognise texts."""
    texts: Sequence[str] = ()
    """The names of its metrics of generated texts."""
    judges: Mapping[str, Judge] = {}
    """The judges of generated items, by the names of their metrics."""
    choppers: Mapping[str, Chopper] = {}
    """The choppers of all inputs, with the encodings of texts. Set after they are fitted."""
    Learned: ClassVar[Any] = None
    """The pydantic model of what `fit` returns, saved as `assets/task-NAME/<its name in lower case>.json`, so that a
    run works without its data; None: nothing is learned."""
    learned: Any = None
    """The result of `fit`."""
    asks: bool = False
    """Whether it is used for `predict` instead of training or evaluation. It hides nothing then."""

    @property
    def needs(self) -> Needs:
        """The requirements of the task."""
        raise NotImplementedError

    def problems(self, name: str, wiring: Wiring) -> Problems:
        """Yields the problems of a configuration in which this task has the name `name`."""
        yield from ()

    def fit(self, data: TrainingColumns) -> Any:
        """Returns what the task learns from the targets of the training data (their classes, their mean), as a
        `Learned`; None for most tasks. Raises DataError if the data are not sufficient."""
        return None

    def check_answer(self, text: str) -> None:
        """Raises ValueError if the task can never answer with this text. Most tasks accept all texts."""

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
        """Returns the head, which maps vectors of the model's `width` to the output of this task. The `Model` owns it.
        `tokenizers` are the embedders by input."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """Returns the batch and the supervised slots with their targets. The task may change what the model reads in
        the batch (mask a word); random choices depend on the seeds of the samples. Computed on the CPU from the plan.

        Any input may be absent from a sample, or from all samples of a batch (then it is not in `chunks`), even the
        target of the task. Such samples have no targets."""
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Returns the loss terms of one micro-batch by name, scalars, each summed over its targets. The first one is
        reported as `loss`; training minimises the sum of all. They are not means: training divides by the number of
        targets in the *global* batch, so that gradient accumulation, several processes and ragged targets give the same
        loss."""
        raise NotImplementedError

    def chance(self) -> float | None:
        """The loss per target of a uniform guess, such as the logarithm of the number of classes, without the task's
        weight. None if it is unknown."""
        return None

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        """Whether each sample of a batch (of a stream: each row) has a target. By default a sample has a target if one
        of its slots has a value that is neither `IGNORED` nor NaN."""
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
        """Returns sums of one micro-batch by name. They are added up over a split for `Metric.of_sums`."""
        return {}

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of an evaluation by name, `loss` first."""
        return {"loss": LOSS}

    def summary(self, values: Sequence[Any]) -> str:
        """Returns a short description of the values of its first target column, which is printed before training:
        `28 circle, 26 square, 6 triangle`. Empty by default."""
        return ""

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """Returns the answer for every sample of the batch, in order, as a dictionary for JSON: {"class": "cat", ...}.
        Recognised text has the key `text`. The key `error` explains a missing answer, such as an absent input."""
        raise NotImplementedError


def asking(task: Task) -> Task:
    """Returns a copy of the task for `predict`, which hides nothing."""
    task = copy(task)
    task.asks = True
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
    """The attention graphs of the main core by their expressions, without expressions that cannot be parsed."""
    order: str
    """The order of a sample's tokens, `data.order`: `inputs` or `seconds`."""
    optional: frozenset[str]
    """The inputs that training drops from some samples (`training.input_dropout`)."""
    tasks: Mapping[str, Task]
    """The tasks before they are fitted. To fit one, copy it (`copy.deepcopy`)."""
    needs: Mapping[str, Needs]
    """The requirements of each task."""
    columns: Mapping[str, str]
    """The data column that each input reads."""
    owners: Mapping[str, str]
    """The input whose tokenizer each input uses: itself, or its `same_as`."""
    roles: Mapping[str, Role]
    """For each input, whether a task generates it, and which special ids the tasks need in it."""
    generated: tuple[str, ...]
    """The inputs that tasks generate token by token."""
    encoded: tuple[str, ...]
    """The inputs that the encoder reads; empty if there is no encoder."""
    axes: tuple[str, ...]
    """The position axes of a set of all inputs: `order`, then those of the tokenizers, without duplicates."""

    def sharing(self, owner: str) -> list[str]:
        """Returns the inputs that use the tokenizer of `owner`, including `owner`."""
        return [name for name in self.owners if self.owners[name] == owner]

    @property
    def in_time(self) -> list[str]:
        """The inputs whose tokens have a position in seconds."""
        return [name for name, part in self.inputs.items() if SECONDS in position_axes({name: part})]

    @property
    def ahead(self) -> frozenset[str]:
        """The inputs that tokens of an earlier time can read in some layer. A user-defined graph that does not define
        `Graph.ahead` and an expression that cannot be parsed add no inputs."""
        names, ahead = list(self.inputs), set[str]()
        for text, graph in self.graphs.items():
            axes = (0, *(self.axes.index(axis) for axis in self.axes if axis == SECONDS))
            bounds = [graph.ahead(axis) for axis in axes]
            sets = [{names[number - 1] for number in bound if number} for bound in bounds if bound is not None]
            ahead |= min(sets, key=len) if sets else set(() if user_defined_graphs(text) else names)
        return frozenset(ahead)

    @property
    def made(self) -> set[str]:
        """The inputs that tasks create from other inputs (`Needs.makes`)."""
        return {name for needs in self.needs.values() for name in needs.makes}
