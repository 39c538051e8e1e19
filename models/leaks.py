"""Leak check: through all layers, no supervised slot may depend on the token that carries its own target.

The mask of one layer is not enough: with `causal | from(image)` and the order text, image, the image reads the text and
earlier text reads the image, so that from layer 2 on a slot depends on its own target. Two proofs, the second where the
first does not hold:

* *By form.* Every graph declares the inputs that may be read ahead of time (`Graph.ahead`). A slot then depends on no
  token that comes after both itself and the last token of those inputs. If the carrier of its target does, there is no
  leak: so it is with `causal`, with `causal(seconds)`, and with prefixes that come first.
* *By search.* Dependence is followed through the layers (`graph.reach`), once for every layout of a sample that was
  not seen before. Where in a packed row the sample is does not matter, since no token reads another sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .attention.graph import Graph
from .attention.mask import reach
from .batch import Batch, Targets
from .tokens import CORE, Tokens, within_samples

ROWS = 4
"""The most rows that are searched for inputs that nobody reads."""


class LeakError(ValueError):
    """A slot that must predict a target can read the token that carries it."""


@dataclass
class LeakCheck:
    """Checks batches for leaks and remembers the layouts that are safe. For reports, `by_form` counts the targets
    proven safe by form, `searched` the sample layouts that were searched."""

    by_form: int = 0
    searched: int = 0
    _safe: set[tuple[bool, str, bytes]] = field(default_factory=set, repr=False)

    def check(self, batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> None:
        """Raises LeakError for the first supervised slot of the batch that depends on its own target. `main` and
        `encoder` are the graphs of the two cores, one per layer."""
        for task, targets in batch.targets.items():
            tokens = batch.set_of(targets).tokens
            for slot, carrier in self._leaks(tokens, targets, encoder if targets.of_encoder else main):
                n = tokens.shape[1]
                raise LeakError(
                    f"model.attention leaks: task {task!r} must predict token {carrier % n} at place {slot % n}, which "
                    "can read it; with 'causal & same_sample' no token reads what comes after it, and what all shall "
                    "read stands first (with data.order: seconds by an offset, such as -1)"
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
    """The supervised slots whose target is carried by a token of the same sample (attention reaches no other), and the
    slots of those tokens."""
    if targets.carriers is None:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    slots = torch.arange(len(targets.carriers)) if targets.slots is None else targets.slots
    samples = tokens.sample.flatten()
    kept = (targets.carriers >= 0) & (samples[targets.carriers.clamp(min=0)] == samples[slots]) & (samples[slots] > 0)
    return slots[kept], targets.carriers[kept]


def proven(tokens: Tokens, slots: Tensor, carriers: Tensor, graphs: Sequence[Graph]) -> Bool[Tensor, "t"]:
    """Which `slots` are safe by the form of the graphs: those whose carrier comes, on one and the same axis, after the
    slot itself and after the last token, in its sample, of every input that is read ahead of time. `graphs`: one per
    layer. What has no coordinate on an axis comes after everything there."""
    safe, sample = torch.zeros(len(slots), dtype=torch.bool), tokens.sample.flatten()
    for axis in range(tokens.position.shape[-1]):
        ahead = [graph.ahead(axis) for graph in set(graphs)]
        if any(inputs is None for inputs in ahead):
            continue
        order = tokens.position[..., axis].flatten().nan_to_num(nan=torch.inf)
        last = torch.full((int(sample.max()) + 1,), -torch.inf)
        for number in frozenset().union(*ahead):
            found = tokens.input.flatten() == number
            last = last.scatter_reduce(0, sample[found], order[found], "amax")
        safe |= order[carriers] > torch.maximum(order[slots], last[sample[slots]])
    return safe


def sample_alone(tokens: Tokens, slots: Tensor) -> Tokens:
    """The sample that fills these slots (row * n + column), as a set of one row."""
    n = tokens.shape[1]
    return within_samples(tokens.select(slots[None] // n, slots[None] % n))


def layout_key(alone: Tokens, inside: Sequence[Tensor]) -> bytes:
    """A digest of one sample's descriptors and of its supervised slots and carriers: samples with the same digest are
    safe, or leak, alike."""
    items = alone.item - alone.item.min()
    found = hashlib.blake2b(digest_size=16)  # many layouts are remembered
    for each in (alone.input, items, alone.position, *inside):
        found.update(repr((each.shape, each.dtype)).encode() + each.contiguous().numpy().tobytes())
    return found.digest()


def leaks(batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> dict[str, list[tuple[int, int]]]:
    """For each task, every leak as (supervised slot, carrier), found by search alone; slots are row * n + column."""
    found = {}
    for task, targets in batch.targets.items():
        tokens, graphs = batch.set_of(targets).tokens, encoder if targets.of_encoder else main
        slots, carriers = carried(tokens, targets)
        n = tokens.shape[1]
        bad = reach(graphs, tokens)[slots // n, slots % n, carriers % n]
        found[task] = list(zip(slots[bad].tolist(), carriers[bad].tolist()))
    return found


def unused_inputs(batch: Batch, main: Sequence[Graph]) -> list[int]:
    """The inputs of the main set, by number, that no supervised slot depends on through its layers: nothing that is
    predicted knows of them. With `causal` and an action at each moment, an instruction behind the last one is such an
    input. Searched are the samples of the first `ROWS` rows that a task of this set judges."""
    judged = [targets for targets in batch.targets.values() if not targets.of_encoder]
    if not judged:
        return []
    n = batch.main.tokens.shape[1]
    tokens = batch.main.tokens.select(slice(ROWS))
    every = torch.zeros(batch.main.tokens.sample.numel(), dtype=torch.bool)
    for targets in judged:
        every[slice(None) if targets.slots is None else targets.slots] = True
    there, read = set(), set()
    for row, supervised in enumerate(every.view(-1, n)[:ROWS] & (tokens.sample > 0)):
        alone = tokens.select(torch.full((1, n), row), torch.arange(n)[None])
        known = reach(main, alone)[0, supervised].any(0)
        there |= set(alone.input[0, torch.isin(alone.sample[0], alone.sample[0, supervised])].tolist())
        read |= set(alone.input[0, known].tolist())
    return sorted(there - read - {CORE})
