"""No target may reach its own predictor, through all layers: proven from the graphs' form, else searched for.

One hop is not enough to judge a graph: with `causal | from(image)` and the order text, image, the image reads the text
and earlier text reads the image, so that from layer 2 on a token hears its own target. Two proofs, the second where the
first does not hold:

* *By form.* Every graph says which inputs it reads ahead of time (`Graph.ahead`). A token then hears of nothing that
  stands behind both itself and the last token of those inputs, and the target's token does: `causal`, and prefixes that
  come first.
* *By search.* The layers are followed from each supervised token (`graph.reach`), once for every layout of a sample
  that was not seen before: where it stands in a packed row does not matter, since no token reads another sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .attention.graph import Graph, reach
from .batch import Batch, Targets
from .tokens import Tokens, within_samples


class LeakError(ValueError):
    """A target can be read by the token that must predict it."""


@dataclass
class LeakCheck:
    """Remembers which layouts are safe. `by_form` and `searched` count targets and layouts, to be told."""

    by_form: int = 0
    searched: int = 0
    _safe: set[tuple[bool, str, bytes]] = field(default_factory=set, repr=False)

    def check(self, batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> None:
        """Raises LeakError for the first target of the batch that can reach its predictor. The graphs are those of the
        main core and of the encoder, one per layer."""
        for task, targets in batch.targets.items():
            tokens = batch.set_of(targets).tokens
            for slot, carrier in self._leaks(tokens, targets, encoder if targets.of_encoder else main):
                n = tokens.shape[1]
                raise LeakError(
                    f"model.attention leaks: task {task!r} must predict token {carrier % n} at place {slot % n}, which "
                    "can read it; for language modelling use 'causal & same_sample'"
                )

    def _leaks(self, tokens: Tokens, targets: Targets, graphs: Sequence[Graph]) -> Iterator[tuple[int, int]]:
        slots, carriers = carried(tokens, targets)
        open_ = ~proven(tokens, slots, carriers, graphs)
        self.by_form += int((~open_).sum())
        if not bool(open_.any()):
            return
        slots, carriers = slots[open_], carriers[open_]
        samples = tokens.sample.flatten()[slots]
        for sample in samples.unique().tolist():
            mine = samples == sample
            members = (tokens.sample.flatten() == sample).nonzero()[:, 0]
            alone = sample_alone(tokens, members)
            inside = [torch.searchsorted(members, each[mine]) for each in (slots, carriers)]
            key = (targets.of_encoder, repr(graphs), layout_key(alone, inside))
            if key in self._safe:
                continue
            self.searched += 1
            bad = reach(graphs, alone)[0, inside[0], inside[1]]
            yield from zip(slots[mine][bad].tolist(), carriers[mine][bad].tolist())
            self._safe.add(key)


def carried(tokens: Tokens, targets: Targets) -> tuple[Int[Tensor, "t"], Int[Tensor, "t"]]:
    """The supervised slots, and of each the slot of the token that carries its target, where there is one in the same
    sample: else no attention can bring it there."""
    none = torch.zeros(0, dtype=torch.long)
    if targets.carriers is None:
        return none, none
    slots = torch.arange(len(targets.carriers)) if targets.slots is None else targets.slots
    samples = tokens.sample.flatten()
    kept = (targets.carriers >= 0) & (samples[targets.carriers.clamp(min=0)] == samples[slots]) & (samples[slots] > 0)
    return slots[kept], targets.carriers[kept]


def proven(tokens: Tokens, slots: Tensor, carriers: Tensor, graphs: Sequence[Graph]) -> Bool[Tensor, "t"]:
    """Which targets the form of the graphs keeps from their predictors: those whose token stands behind the predictor
    and behind the last token, in their sample, of every input that is read ahead of time."""
    ahead = [graph.ahead() for graph in set(graphs)]
    if any(inputs is None for inputs in ahead):
        return torch.zeros(len(slots), dtype=torch.bool)
    row, n = slots // tokens.shape[1], tokens.shape[1]
    order, sample = tokens.position[..., 0], tokens.sample.flatten()
    last = torch.full((int(sample.max()) + 1,), -torch.inf)
    for number in frozenset().union(*ahead):
        found = tokens.input == number
        last = last.scatter_reduce(0, tokens.sample[found], order[found], "amax")
    heard = torch.maximum(order[row, slots % n], last[sample[slots]])
    return order[carriers // n, carriers % n] > heard


def sample_alone(tokens: Tokens, slots: Tensor) -> Tokens:
    """One sample, by its slots, as a set by itself."""
    b, n = tokens.shape
    flat = {name: getattr(tokens, name).reshape(b * n, -1)[slots] for name in ("input", "sample", "item", "position")}
    position = flat.pop("position")[None]
    return within_samples(Tokens(position=position, **{name: value[None, :, 0] for name, value in flat.items()}))


def layout_key(alone: Tokens, inside: Sequence[Tensor]) -> bytes:
    """What two samples have in common where the same targets are safe in both."""
    items = alone.item - alone.item.min()
    fields = (alone.input, items, alone.position, *inside)
    found = hashlib.blake2b(digest_size=16)  # many layouts are remembered
    for each in fields:
        found.update(repr((each.shape, each.dtype)).encode() + each.contiguous().numpy().tobytes())
    return found.digest()


def leaks(batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> dict[str, list[tuple[int, int]]]:
    """For each task, every (supervised slot, carrier) where a target can reach its own predictor, by search alone."""
    found = {}
    for task, targets in batch.targets.items():
        tokens, graphs = batch.set_of(targets).tokens, encoder if targets.of_encoder else main
        slots, carriers = carried(tokens, targets)
        n = tokens.shape[1]
        bad = reach(graphs, tokens)[slots // n, slots % n, carriers % n]
        found[task] = list(zip(slots[bad].tolist(), carriers[bad].tolist()))
    return found
