"""The values on the page of `chopmix inspect`: numbers of tokens, what each layer reads, the targets, and the attention
by input. `inspection.py` and `learned_sections.py` write them as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..inference.explorer import ShownSet, token_texts
from ..inference.tracing import Trace
from ..models.attention.graph import Graph
from ..models.attention.mask import dense_mask, reach
from ..models.batch import IGNORED, Batch
from ..models.tokens import PADDING, Tokens
from .shown_sample import Shown


def token_counts(tokens: Tokens, inputs: int) -> list[int]:
    """Returns the number of tokens of the core, followed by that of each input."""
    return tokens.input[tokens.sample != PADDING].bincount(minlength=inputs + 1).tolist()


class Reach(NamedTuple):
    """Numbers of tokens of a layer."""

    attended: float
    """The number to which a token attends in this layer, on average."""
    sources: float
    """The number whose information can have reached a token after this layer, on average."""
    most: int
    """The largest number whose information can have reached a token."""


def reach_by_layer(graphs: Sequence[Graph], tokens: Tokens) -> list[Reach]:
    """Returns the numbers of each layer for the first row. `graphs`: the attention graph of each layer."""
    is_token, layers = tokens.sample[0] != PADDING, []
    for depth, graph in enumerate(graphs, start=1):
        attended = dense_mask(graph, tokens, tokens)[0][is_token].sum(1).float()
        sources = reach(graphs[:depth], tokens)[0][is_token].sum(1)
        layers.append(Reach(float(attended.mean()), float(sources.float().mean()), int(sources.max())))
    return layers


class Target(NamedTuple):
    """A target that is an id of an input."""

    place: str
    """The token at which it is predicted; its slot too, if only some tokens are supervised."""
    text: str
    best: str | None = None
    """The text of the most likely id; None without a trained model, or if its output has no logits of ids."""
    probability: float | None = None


def targets_with_ids(name: str, shown: Shown) -> list[Target] | None:
    """Returns the known targets of the task `name` for the sample; None if they are not ids of an input. For a trained
    model, they have the prediction."""
    targets, target = shown.batch.targets[name], shown.tasks[name].target
    planned = shown.batch.set_of(targets)
    vocabulary = shown.choppers[target].vocabulary if target in shown.choppers else None
    if vocabulary is None or target not in planned.chunks or targets.values.is_floating_point():
        return None
    ids, context = targets.values.flatten().tolist(), planned.chunks[target].values.flatten().tolist()
    if len(context) == len(ids):
        places = [repr(vocabulary.shown(id)) for id in context]
    else:  # only the masked slots are supervised
        whole = ShownSet("", planned, {}, [[n] for n in range(planned.tokens.shape[1])])
        texts, _ = token_texts(whole, shown.choppers, shown.model.inputs)
        places = [f"slot {slot}, {texts[slot]}" for slot in targets.slots.tolist()]
    known = [(number, places[number], id) for number, id in enumerate(ids) if id != IGNORED]
    output = shown.trace.outputs.get(name) if shown.trace else None
    if output is None or output.dim() != 2 or len(output) != len(ids) or output.shape[1] < vocabulary.size:
        return [Target(place, repr(vocabulary.shown(id))) for _, place, id in known]
    shares = output[:, : vocabulary.size].float().softmax(-1).cpu()
    best = [repr(vocabulary.shown(id)) for id in shares.argmax(-1).tolist()]
    return [
        Target(place, repr(vocabulary.shown(id)), best[number], float(shares[number, id]))
        for number, place, id in known
    ]


def supervised_slots(batch: Batch, task: str) -> list[int]:
    """Returns the slots whose output vectors a task uses for its known targets."""
    targets = batch.targets[task]
    known = targets.values.flatten() if targets.groups is None else None
    slots = torch.arange(batch.set_of(targets).tokens.sample.shape[1]) if targets.slots is None else targets.slots.cpu()
    if known is not None and len(known) == len(slots) and not known.is_floating_point():
        slots = slots[known.cpu() != IGNORED]
    return slots.tolist()


def attention_by_input(trace: Trace, layers: Sequence[int]) -> tuple[list[int], Float[Tensor, "n l"]]:
    """Returns (numbers of the inputs in the main set, shares): the share of attention that each of them gets from the
    slots at which the tasks predict, in each of the `layers` (mean over heads) and, in the last column, in the rollout.
    There are no inputs if no task predicts in the main set, or if the set has only one input."""
    main, targets = trace.cores["main"], trace.batch.targets
    slots = sorted(
        {slot for task in targets if not targets[task].of_encoder for slot in supervised_slots(trace.batch, task)}
    )
    owners = main.plan.tokens.input[0]
    present = sorted({*owners[main.plan.tokens.sample[0] != PADDING].tolist()})
    if not slots or len(present) < 2:
        return [], torch.empty(0, len(layers) + 1)
    matrices = [*(main.attention[layer - 1].mean(0) for layer in layers), main.rollout()]
    read = torch.stack([matrix[slots].mean(0) for matrix in matrices], dim=1)
    return present, torch.stack([read[owners == number].sum(0) for number in present])
