"""The contract of tasks: from a batch to supervised slots and targets, from a head's output to loss terms and metrics.

A task has no parameters; these are in its head (`models/heads.py`)."""

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
    """The batch with every task's targets, and with what the tasks hide hidden; tasks that make inputs (`Needs.makes`)
    come first."""
    targets = {}
    for name, task in sorted(tasks.items(), key=lambda each: not each[1].needs.makes):
        batch, targets[name] = targets_of(name, task, batch)
    return replace(batch, targets={name: targets[name] for name in tasks})


def with_targets_apart(batch: Batch, tasks: Mapping[str, Task]) -> list[Batch]:
    """The batch with the targets of every task, several times: no task sees what another one hides. The first has those
    of all tasks that leave the batch as it is; each of the others those of one task, with what it hides hidden. What
    tasks make (`Needs.makes`) is in all of them."""
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
    """`task.targets(batch)` of the task `name`. Raises ContractError where it is not (Batch, Targets)."""
    found = task.targets(batch)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Batch) and isinstance(found[1], Targets):
        return found
    given = f"({', '.join(map(described, found))})" if isinstance(found, tuple) else described(found)
    raise ContractError(
        f"tasks.{name}: {type(task).__name__}.targets gave {given}; expected is (batch, Targets): the batch, in which "
        "it may have hidden something, and which slots are judged against what"
    )


def head_of(name: str, task: Task, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
    """`task.head(tokenizers, width)` of the task `name`. Raises ContractError if it is no `Head`."""
    head = task.head(tokenizers, width)
    if not isinstance(head, Head):
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.head returned {described(head)}; expected is a chopmix.Head: a torch "
            "module with forward(x, targets)"
        )
    return head


WRONG = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What code raises for a tensor of another shape than it expects."""


def terms_of(name: str, task: Task, head: nn.Module, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
    """`task.terms(output, targets)` of the task `name`, where its class or that of `head`, which gave the output, comes
    from outside chopmix. Raises ContractError where the task cannot take the output, or its terms are not scalars by
    name."""
    given = f"{type(head).__name__} gave {described(output)} for {len(targets.values)} targets"
    if isinstance(head, VocabularyHead) and (output.dim() != 2 or output.shape[1] != len(head.table)):
        raise ContractError(f"tasks.{name}.head: {given}; expected is ({len(targets.values)}, {len(head.table)}): a "
                            "score for each id of the vocabulary")  # fmt: skip
    try:
        found = task.terms(output, targets)
    except torch.OutOfMemoryError:
        raise
    except WRONG as error:
        raise ContractError(f"tasks.{name}: {type(task).__name__}.terms cannot take it: {given}: {error}") from error
    scalars = isinstance(found, Mapping) and all(isinstance(each, Tensor) and not each.dim() for each in found.values())
    if not scalars or not found:
        told = {key: described(each) for key, each in found.items()} if isinstance(found, Mapping) else described(found)
        raise ContractError(
            f"tasks.{name}: {type(task).__name__}.terms gave {told}; expected are losses by name, each a tensor of one "
            "number: summed over the targets, not a mean"
        )
    return found


class Metric(NamedTuple):
    """A figure of a whole split, computed from sums over its batches, or from generated and reference texts."""

    unit: str
    larger_is_better: bool | None = False
    """None: runs cannot be compared by it."""
    of_sums: Callable[[Mapping[str, Tensor]], float | None] | None = None
    """Computes it from the sums over a split: `loss` (the first of `Task.terms`), `count` (of targets), those of
    `Task.measure`, and, for items that are ids, their size in `units`; gives None where a sum is missing."""
    of_texts: Callable[[Sequence[str], Sequence[str]], float] | None = None
    """Computes it from the hypotheses (texts as they were generated) and the references of a split, in one order."""
    of_outputs: Callable[[Tensor, Tensor], float] | None = None
    """Computes it from the head's outputs (float32, on the CPU) and the values of all targets of a split, along the
    first axis, in no particular order; such as the recall of retrieval. Each process keeps them in memory."""
    counted: Callable[[Mapping[str, Tensor]], float] | None = None
    """How many samples it is measured on, from the sums; None: all samples that have a target."""
    of_judge: bool = False
    """Whether one of the task's `judges` computes it from the generated items of a split."""
    of_chain: bool = False
    """Whether it is computed from sums over some items, whose tokens are predicted one by one, from left to right."""

    @property
    def of_generated(self) -> bool:
        """Whether it is a figure of generated items, which cost a generation each."""
        return self.of_texts is not None or self.of_judge

    @property
    def measured_on(self) -> str:
        """The count that says on how many samples it is measured: `judged` (generated or recognised items),
        `chain_samples`, or `samples` (all that have a target)."""
        return "judged" if self.of_generated else "chain_samples" if self.of_chain else "samples"

    @property
    def in_nats(self) -> bool:
        """Whether its unit is nats, so that a difference of two values can be given in bits."""
        return self.unit.startswith("nats")


def known_values(values: Tensor) -> Bool[Tensor, "t"]:
    """Whether each target, a number or a row of some, has a value that is neither `IGNORED` nor NaN."""
    known = ~values.isnan() if values.is_floating_point() else values != IGNORED
    return known.flatten(1).any(1) if known.dim() > 1 else known


def per_target(sums: Mapping[str, Tensor], name: str = "loss") -> float:
    """The sum called `name` over the number of targets."""
    return float(sums[name] / sums["count"].clamp(min=1))


def metrics_of(judges: Mapping[str, Judge]) -> dict[str, Metric]:
    """The metrics that judges compute, by name."""
    return {
        name + more: Metric(known.unit, known.larger_is_better, of_judge=True)
        for name, judge in judges.items()
        for more, known in judge.figures.items()
    }


LOSS = Metric("nats per target", of_sums=per_target)


def figures(metrics: Mapping[str, Metric], sums: Mapping[str, Tensor]) -> dict[str, float]:
    """The metrics that the sums over a split give, by name."""
    found = {name: metric.of_sums(sums) for name, metric in metrics.items() if metric.of_sums}
    return {name: value for name, value in found.items() if value is not None}


@runtime_checkable
class TrainingColumns(Protocol):
    """What `Task.fit` sees of the training data: one column at a time."""

    def __len__(self) -> int:
        """How many samples there are."""

    def column(self, name: str) -> Iterator[Any]:
        """The values of one column, of all samples that have one, in order."""

    def items(self, name: str) -> Iterator[Any]:
        """The raw values of one input, of all samples that have one, in order."""

    def say(self, text: str) -> None:
        """Print a remark about the data to the user."""


def whole_context(context: int, encoder_context: int) -> int:
    """`Needs.window` of most tasks: a corpus is read in windows of the core's context."""
    return context


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a task requires, known from its options alone, before there are data or a model."""

    columns: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """The data columns that it reads, each with a check that raises DataError for a value that cannot be a target: the
    sample counts as bad then."""
    inputs: tuple[str, ...] = ()
    """The inputs that it is about, which input dropout never drops, unless it `refines`."""
    supervised_at: tuple[str, ...] = ()
    """Further inputs that are never withheld, since it is at their tokens that it is judged."""
    makes: tuple[str, ...] = ()
    """The inputs that it makes of others, and that no data set has."""
    generates: bool = False
    """Whether it generates the item of its target, token by token."""
    refines: bool = False
    """Whether it generates the item of its target by refining a draft (`models/generation/refine.py`). Its inputs may
    be withheld, as where one is made of another: it has no target then."""
    compared: tuple[str, ...] = ()
    """Further data columns that its judges compare generated items with."""
    encoder: bool = False
    """Whether it needs an encoder, whose output its text is generated from by cross-attention."""
    hides: str = ""
    """How it hides the target in the input that it is about, for messages: `shifted`, `masked`, `denoised`. Empty: it
    does not, so that no input may read the column that it predicts."""
    special_ids: tuple[str, ...] = ()
    """Roles of the special ids that it needs in the encoding of its inputs, such as `mask`."""
    whole_batch: bool = False
    """Whether its loss compares all samples of a global batch with each other. `Task.terms` then receives the outputs
    and targets of all micro-batches and processes, concatenated along the first axis, in no particular order; of the
    targets only `values`, `weights` and `count` are set. In an evaluation it receives one batch at a time."""
    window: Callable[[int, int], int] = whole_context
    """From the core's context and the encoder's (0: none) to the tokens of a window of a corpus."""
    asked: Mapping[str, Callable[[Chopper], Chopper]] = field(default_factory=dict)
    """Per input, from its chopper to the one for `predict`, in which, say, marks stand for masks."""


Problems = Iterator[tuple[tuple[str | int, ...], str]]
"""Problems of a configuration: the path of each in the YAML, `("inputs", "image", "size")`, and a message."""


class Task:
    """Base of all tasks."""

    target: str
    """The input or data column that it predicts."""
    weight: float = 1.0
    """By which its loss is multiplied before the losses of all tasks are added."""
    search: Search = Search()
    """How texts are searched for, where it generates or recognises texts."""
    texts: Sequence[str] = ()
    """Its metrics of generated texts, by name."""
    judges: Mapping[str, Judge] = {}
    """The judges of what it generates, by the names of their metrics."""
    choppers: Mapping[str, Chopper] = {}
    """The choppers of all inputs, with the encodings of texts: set once they are fitted."""
    Learned: ClassVar[Any] = None
    """The pydantic model of what `fit` returns, saved as `assets/task-NAME/<its name in lower case>.json`, so that a
    run works without its data; None: nothing is learned."""
    learned: Any = None
    """What `fit` returned."""
    asks: bool = False
    """Whether it answers a question (`predict`), rather than being trained or evaluated: it hides nothing then."""

    @property
    def needs(self) -> Needs:
        """What it requires."""
        raise NotImplementedError

    def problems(self, name: str, wiring: Wiring) -> Problems:
        """Problems of the other sections of a configuration in which this task has the name `name`."""
        yield from ()

    def fit(self, data: TrainingColumns) -> Any:
        """What it must know of the training data's targets (their classes, their mean), as a `Learned`; None for most.
        Raises DataError where the data do not tell it."""
        return None

    def check_answer(self, text: str) -> None:
        """Raises ValueError for a text that it can never answer; most tasks know no such text."""

    def head(self, tokenizers: Mapping[str, nn.Module], width: int) -> Head:
        """The head from vectors of the model's `width` to this task's output; the `Model` owns it. `tokenizers`: the
        embedders by input."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> tuple[Batch, Targets]:
        """The batch, in which the task may have changed what the model reads (masked a word) by the samples' seeds; and
        the supervised slots with their targets. Computed on the CPU, from the plan.

        Any input may be absent from a sample, or from all samples of a batch (it is in no `chunks` then), also the one
        that the task is about: such samples have no targets."""
        raise NotImplementedError

    def terms(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """The loss terms of one micro-batch by name, scalars, each summed over its targets. The first is reported as
        `loss`; training minimises the sum of all. They are sums, never means: training divides by the targets of the
        *global* batch, so that accumulation, processes and ragged targets agree by construction."""
        raise NotImplementedError

    def chance(self) -> float | None:
        """The loss per target of a uniform guess, such as the logarithm of the number of classes, without the task's
        weight; None: the task has no such number."""
        return None

    def supervised(self, batch: Batch, targets: Targets) -> Bool[Tensor, "s"]:
        """Whether each sample of a batch (of a stream: each row) has a target. By default those have one to which a
        slot belongs whose value is known: neither `IGNORED` nor NaN."""
        if targets.lengths is not None:
            return targets.lengths >= 0
        planned = batch.set_of(targets)
        rows, n = planned.tokens.shape
        owner = planned.tokens.sample.flatten() - 1 if planned.samples else torch.arange(rows).repeat_interleave(n)
        owner = owner if targets.slots is None else owner[targets.slots]
        known = known_values(targets.values)
        if targets.groups is not None and len(known) != len(owner):
            known = known[targets.groups]
        found = torch.zeros(planned.samples or rows, dtype=torch.bool)
        found[owner[known]] = True
        return found

    def measure(self, output: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Sums of one micro-batch by name, which are added up over a split for `Metric.of_sums`."""
        return {}

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The metrics of an evaluation by name, `loss` first."""
        return {"loss": LOSS}

    def summary(self, values: Sequence[Any]) -> str:
        """What the values of its first target column are, in a few words, for the lines before the first step: `28
        circle, 26 square, 6 triangle`. By default nothing."""
        return ""

    def answers(self, output: Tensor, targets: Targets, batch: Batch) -> list[dict[str, Any]]:
        """The answer to every sample of the batch, in order, a dictionary for JSON: {"class": "cat", ...}; recognised
        text is under `text`, and `error` says why there is no answer, such as an absent input."""
        raise NotImplementedError


def asking(task: Task) -> Task:
    """A copy of the task for `predict`, which hides nothing."""
    made = copy(task)
    made.asks = True
    return made


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """Facts about a configuration that need neither data nor a model.

    An image and its caption, which is generated behind an encoder:

        columns    {"image": "image", "caption": "text"}     `data.columns` maps caption to text
        owners     {"image": "image", "caption": "caption"}
        generated  ("caption",)
        encoded    ("image",)
        axes       ("order", "row", "column")
    """

    inputs: Mapping[str, Part]
    """The tokenizer of each input, and its options."""
    model: Mapping[str, Any]
    """The options of the model."""
    graphs: Mapping[str, Graph]
    """The attention graphs of the main core by their expressions, without those that cannot be parsed."""
    order: str
    """The order of a sample's tokens, `data.order`: `inputs` or `seconds`."""
    optional: frozenset[str]
    """The inputs that training leaves out of some samples (`training.input_dropout`)."""
    tasks: Mapping[str, Task]
    """The tasks as their options say, before anything is fitted. To fit one, copy it (`copy.deepcopy`)."""
    needs: Mapping[str, Needs]
    """What each task needs."""
    columns: Mapping[str, str]
    """The data column that each input reads."""
    owners: Mapping[str, str]
    """The input whose tokenizer each input uses: itself, or the input that it is `same_as`."""
    roles: Mapping[str, Role]
    """Whether a task generates each input, and which special ids the tasks need in it."""
    generated: tuple[str, ...]
    """The inputs that tasks generate token by token."""
    encoded: tuple[str, ...]
    """The inputs that the encoder reads; empty if there is no encoder."""
    axes: tuple[str, ...]
    """The position axes of a set of all inputs: `order`, then those of the tokenizers, each once."""

    def sharing(self, owner: str) -> list[str]:
        """The inputs that use the tokenizer of `owner`, itself among them."""
        return [name for name, each in self.owners.items() if each == owner]

    @property
    def in_time(self) -> list[str]:
        """The inputs whose tokens have a position in seconds."""
        return [name for name, part in self.inputs.items() if SECONDS in position_axes({name: part})]

    @property
    def ahead(self) -> frozenset[str]:
        """The inputs that tokens before them in time may read, in some layer. A user-defined graph that does not say
        so contributes nothing, nor does an expression that cannot be parsed."""
        names, found = list(self.inputs), set[str]()
        for text, graph in self.graphs.items():
            axes = (0, *(self.axes.index(each) for each in self.axes if each == SECONDS))
            known = [graph.ahead(axis) for axis in axes]
            sets = [{names[number - 1] for number in each if number} for each in known if each is not None]
            found |= min(sets, key=len) if sets else set(() if user_defined_graphs(text) else names)
        return frozenset(found)

    @property
    def made(self) -> set[str]:
        """The inputs that tasks make of others, and that no data set has."""
        return {name for needs in self.needs.values() for name in needs.makes}
