"""What a model computes for one sample: the attention weights and the vectors of every layer, what the heads would
predict after each layer, and the effect of an input of another sample.

    trace = run.trace({"image": "7.png", "operator": "+", "sound": "5.wav"})
    trace.main.attention[2][0]         layer 3, head 1: a row of weights for each token, (n, n)
    trace.main.rollout()               the share of each input token in each output vector, (n, n)
    trace.predictions("answer")        what the head predicts after 0, 1, 2, ... layers
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.sampler import SampleIndex
from ..data.split import Split
from ..files.reading import DataError
from ..models.attention.kernels import Layout
from ..models.attention.weights import observed, recorded
from ..models.batch import IGNORED, Batch, SetPlan
from ..models.model import Model, at
from ..models.transformer import Transformer
from ..tasks.base import Task, answers_of, with_targets_apart
from .predict import planned
from .shown_answers import short_text
from .trained import TrainedModel


@dataclass(frozen=True, kw_only=True)
class CoreTrace:
    """What one core (a transformer of L layers and h heads) computed for the set of a sample with n tokens."""

    plan: SetPlan
    """The set: the descriptors of its tokens, and the chunks of each input."""
    attention: Sequence[Float[Tensor, "h n n"]]
    """The weights of each layer. Row i of a head: the weights with which token i reads all tokens; they add up to 1. A
    block without attention has no heads, (0, n, n)."""
    cross: Sequence[Float[Tensor, "h n m"]]
    """The weights of each layer with which the tokens read the m tokens of the encoder. Empty without an encoder, and
    for blocks without cross-attention."""
    hidden: Float[Tensor, "L+1 n d"]
    """The vectors of the tokens before the first layer and after each layer."""

    def rollout(self) -> Float[Tensor, "n n"]:
        """Returns the share of each token of the set in the output vector of each token, if a layer adds the mean over
        its heads to the vector itself in equal parts (Abnar & Zuidema 2020, arXiv:2005.00928). Rows add up to 1."""
        n = self.hidden.shape[1]
        shares = torch.eye(n)
        for weights in self.attention:
            if len(weights):
                layer = weights.mean(0) + torch.eye(n)
                shares = layer / layer.sum(1, keepdim=True) @ shares
        return shares

    def slots(self, number: int) -> Int[Tensor, "t"]:
        """Returns the slots of the tokens of an input. `number`: its number in the set, from 1; 0: core tokens."""
        tokens = self.plan.tokens
        return ((tokens.input[0] == number) & (tokens.sample[0] > 0)).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What a model computes for one sample, in float32."""

    model: Model
    tasks: Mapping[str, Task]
    batch: Batch
    """The sample as a batch of one row, with the targets of the traced tasks."""
    cores: Mapping[str, CoreTrace]
    """By the name of the core: `encoder` if there is one, and `main`."""
    outputs: Mapping[str, Tensor]
    """The output of the head of each task in `batch.targets`."""
    difference: Mapping[str, float]
    """By task, the largest absolute difference between `outputs` and the outputs in the precision of the run, which can
    be bfloat16."""

    @property
    def main(self) -> CoreTrace:
        """The decoder, or the only core."""
        return self.cores["main"]

    def input_number(self, name: str) -> int:
        """Returns the number of an input in the set. Raises DataError for an input that the model does not have or that
        the sample lacks."""
        present = [input for planned_set in self.batch.sets.values() for input in planned_set.chunks]
        if name not in self.model.inputs or name not in present:
            problem = "the sample has no input" if name in self.model.inputs else "the run has no input"
            raise DataError(f"{problem} {name!r}; possible: {', '.join(present)}")
        return self.model.inputs.index(name) + 1

    def core_of(self, name: str) -> str:
        """Returns the name of the core that reads an input: `encoder` or `main`."""
        self.input_number(name)
        return next(core for core, planned_set in self.batch.sets.items() if name in planned_set.chunks)

    @torch.inference_mode()
    def lens(self, task: str) -> list[Tensor]:
        """Returns the outputs of the head of a task for the vectors after 0, 1, ..., L layers, after the normalisation
        of the core (the logit lens, nostalgebraist 2020). The last output is the output of the model."""
        targets = self.batch.targets[task]
        name = "encoder" if targets.of_encoder else "main"
        core, head = self.model.cores[name], self.model.heads[task]
        return [head(at(core.norm(x[None]), targets), targets) for x in self.cores[name].hidden]

    def predictions(self, task: str) -> list[str]:
        """Returns the prediction of a task after 0, 1, ..., L layers as texts."""
        return [self.text_of(task, output) for output in self.lens(task)]

    def text_of(self, task: str, output: Tensor) -> str:
        """Returns what a task predicts from an output of its head, as a short text. For a text that is generated token
        by token, it is the most likely token after each prefix of the text in the sample; for a window of a corpus, the
        most likely token in each place that is hidden."""
        targets = self.batch.targets[task]
        if self.tasks[task].needs.generates:
            return "".join(text for _, text in self.predicted_tokens(task, output))
        if answers := answers_of(task, self.tasks[task], output, targets, self.batch):
            return short_text(answers[0])
        vocabulary = self.tasks[task].vocabulary  # a window of a corpus: its hidden tokens
        ids = output[: len(targets.values), : vocabulary.size].argmax(-1)[targets.values != IGNORED].tolist()
        return short_text({"text": " ".join(vocabulary.shown(id) for id in ids)})

    def predicted_tokens(self, task: str, output: Tensor | None = None) -> list[tuple[int, str]]:
        """Returns (slot, text) of the tokens that a task predicts for the text in the sample: the most likely token
        after each prefix, and the slot in the set at which it is predicted. The id that ends a text is left out. Empty
        for a task that does not generate tokens. `output`: an output of its head; None: that of the model."""
        if not self.tasks[task].needs.generates:
            return []
        targets, output = self.batch.targets[task], self.outputs[task] if output is None else output
        vocabulary, known = self.tasks[task].vocabulary, targets.values.flatten() != IGNORED
        slots = (torch.arange(len(known)) if targets.slots is None else targets.slots.cpu())[known.cpu()].tolist()
        ids = output.reshape(-1, output.shape[-1])[known].argmax(-1).tolist()
        if ids and ids[-1] in {*vocabulary.ends, *vocabulary.after}:
            slots, ids = slots[:-1], ids[:-1]
        return [(slot, vocabulary.shown(id)) for slot, id in zip(slots, ids)]

    def loss(self, task: str, output: Tensor) -> float:
        """Returns the loss of an output of the head for the true value of the sample, summed over its targets, in bits.
        For a loss that is not a negative log-likelihood, in the unit of the loss. NaN without a true value."""
        targets = self.batch.targets[task]
        if not targets.count:
            return math.nan
        sums = {**self.tasks[task].terms(output, targets), **self.tasks[task].measure(output, targets)}
        value = float(sums.get("nats", next(iter(sums.values()))))
        return value / math.log(2) if self.tasks[task].metrics["loss"].in_nats else value

    def replaced(self, other: Trace, input: str) -> list[dict[str, Tensor]]:
        """Returns the outputs of the heads if the tokens of `input` have the vectors of another trace after 0, 1, ...,
        L layers, and all other tokens those of this one. `other` is the trace of the same sample, whose `input` comes
        from another sample.

        The first output is that of the other input. The output changes back to that of this sample in the layers in
        which the other tokens read the input: afterwards its tokens do not matter. Raises DataError for an input that
        the sample lacks, or if the two inputs have different numbers of tokens."""
        number, name = self.input_number(input), self.core_of(input)
        core, slots = self.cores[name], self.cores[name].slots(number)
        if not torch.equal(core.plan.tokens.input, other.cores[name].plan.tokens.input):
            counts = f"{len(slots)} and {len(other.cores[name].slots(number))} tokens"
            raise DataError(f"input {input!r} of the two samples has {counts}, or they are in other places of the set; "
                            "only an input with the same places can be replaced")  # fmt: skip
        transformer, batch = self.model.cores[name], planned(self.model, self.batch)
        return [
            outputs_with(self.model, batch, transformer, layer, slots, vectors[slots])
            for layer, vectors in enumerate(other.cores[name].hidden)
        ]


@torch.inference_mode()
def outputs_with(
    model: Model, batch: Batch, core: Transformer, layer: int, slots: Tensor, vectors: Float[Tensor, "t d"]
) -> dict[str, Tensor]:
    """Returns the outputs of the heads if the tokens in `slots` have these vectors after `layer` layers of a core."""

    def changed(x: Float[Tensor, "1 n d"]) -> Float[Tensor, "1 n d"]:
        return x.index_copy(1, slots, vectors[None].to(x.dtype))

    written_by = [core.embedding_dropout, *core.blocks][layer]
    hook = written_by.register_forward_hook(lambda module, inputs, output: changed(output))
    with hook, in_float32(model):
        return model(batch)


@contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """A context in which the model is in evaluation mode and computes in the precision of its weights."""
    training = model.training
    try:
        with torch.autocast(next(model.parameters()).device.type, enabled=False):
            yield model.eval()
    finally:
        model.train(training)


@torch.inference_mode()
def traced(trained: TrainedModel, batch: Batch, precise: Mapping[str, Tensor] | None = None) -> Trace:
    """Returns the trace of a batch with one row. `precise`: the outputs in the precision of the run."""
    model = trained.model
    batch = planned(model, batch)
    watched = replace(batch, main=observed(batch.main), encoder=batch.encoder and observed(batch.encoder))
    vectors: dict[str, list[Tensor]] = {name: [] for name in model.cores}
    with ExitStack() as hooks, in_float32(model):
        for name, core in model.cores.items():
            for module in (core.embedding_dropout, *core.blocks):
                hooks.enter_context(module.register_forward_hook(
                    lambda module, inputs, output, kept=vectors[name]: kept.append(output[0])
                ))  # fmt: skip
        outputs = model(watched)
    cores = {}
    for name, planned_set in watched.sets.items():
        n = planned_set.tokens.shape[1]
        cores[name] = CoreTrace(
            plan=batch.sets[name], hidden=torch.stack(vectors[name]),
            attention=[weights_of(layout, n) for layout in planned_set.layouts],
            cross=[] if planned_set.cross is None else [weights[0].cpu() for weights in recorded(planned_set.cross)],
        )  # fmt: skip
    differences = {name: (precise[name] - output).abs() for name, output in outputs.items()} if precise else {}
    difference = {name: float(each.max()) for name, each in differences.items() if each.numel()}  # else: no target
    return Trace(model=model, tasks=trained.tasks, batch=batch, cores=cores, outputs=outputs, difference=difference)


def weights_of(layout: Layout, n: int) -> Float[Tensor, "h n n"]:
    """Returns the weights of the first row that a layout has recorded: the heads of all calls, in their order."""
    return torch.cat([weights[0].cpu() for weights in recorded(layout)] or [torch.zeros(0, n, n)])


def batch_of(
    split: Split, index: SampleIndex, tasks: Mapping[str, Task], task: str | None = None,
    replaced: Mapping[str, Any] | None = None,
) -> Batch:  # fmt: skip
    """Returns one sample, or one window of a corpus, as a batch with the targets of the tasks. A task that hides parts
    of the inputs has a batch of its own. `task`: the task whose batch is returned; None: the first one. `replaced`: by
    input, an item that replaces the item of the sample. Raises DataError if the sample is bad, or if there is no task
    of this name."""
    if replaced:
        batches = with_targets_apart(split.read([index], replaced=replaced), tasks)
    else:
        batches = split.batches([index], tasks)
    if (reason := split.skipped.bad.get(index.number)) is not None:
        raise DataError(f"sample {split.skipped.bad.sample_keys[index.number]!r} is bad: {reason}")
    for batch in batches:
        if task is None or task in batch.targets:
            return batch
    raise DataError(f"no task {task!r}; possible: {', '.join(tasks)}")
