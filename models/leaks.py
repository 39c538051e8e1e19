"""Leak check: through all layers, no supervised slot may depend on the *carrier* of its target, which is the token that
contains the target as input.

It is not enough to check the mask of one layer. With `causal | from(image)` and the order text, image, the image reads
all preceding text in layer 1, and in layer 2 earlier text reads the image. Therefore a slot depends on its target from
layer 2 on. There are two ways to prove that there is no leak; the second is used for slots for which the first fails:

* *By declaration.* `Graph.ahead` declares the inputs that earlier tokens may read. A slot depends on no token that
  comes after both the slot itself and the last token of these inputs. There is no leak if the carrier comes after both.
  This is true for `causal`, for `causal(seconds)`, and for inputs read by all tokens if these inputs come first. The
  declarations of user-defined graphs are compared with their edges in every batch.
* *By search.* The dependence is computed through the layers (`mask.reach`), once for each new layout of a sample. The
  position of the sample in a packed row does not matter, because no token reads another sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from .attention.graph import Graph, operands
from .attention.mask import dense_mask, reach
from .batch import Batch, Targets
from .contract import is_user_defined
from .tokens import CORE, Tokens, within_samples

CHECKED_ROWS = 4
"""The maximum number of rows that `unused_inputs` searches."""


class LeakError(ValueError):
    """A supervised slot depends on the token that contains its target."""


@dataclass
class LeakCheck:
    """Checks batches for leaks and stores the layouts of samples without leaks. For reports: `by_form` is the number of
    targets without a leak by declaration (see above), and `searched` is the number of searched layouts of samples."""

    by_form: int = 0
    searched: int = 0
    _safe: set[tuple[bool, str, bytes]] = field(default_factory=set, repr=False)

    def check(self, batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> None:
        """Raises LeakError if a supervised slot of the batch depends on the carrier of its target. The message names
        the first such slot. `main` and `encoder` are the graphs of the two cores, one graph per layer."""
        for name, graphs in (("main", main), ("encoder", encoder)):
            declared = {g for g in with_operands({*graphs}) if is_user_defined(g) and type(g).ahead is not Graph.ahead}
            if declared and name in batch.sets:
                check_declared(declared, batch.sets[name].tokens)
        for task, targets in batch.targets.items():
            tokens = batch.set_of(targets).tokens
            for slot, carrier in self._leaks(tokens, targets, encoder if targets.of_encoder else main):
                raise leak(task, carrier % tokens.shape[1], slot % tokens.shape[1])

    def _leaks(self, tokens: Tokens, targets: Targets, graphs: Sequence[Graph]) -> Iterator[tuple[int, int]]:
        slots, carriers = carried(tokens, targets)
        safe = proven(tokens, slots, carriers, graphs)
        self.by_form += int(safe.sum())
        if not bool(safe.all()):
            yield from self._searched(tokens, targets, graphs, slots[~safe], carriers[~safe])

    def _searched(
        self, tokens: Tokens, targets: Targets, graphs: Sequence[Graph], slots: Tensor, carriers: Tensor
    ) -> Iterator[tuple[int, int]]:
        """Yields the leaking pairs among these slots and carriers, which no form of the graphs excludes."""
        samples = tokens.sample.flatten()[slots]
        for sample in samples.unique().tolist():
            in_sample = samples == sample
            members = (tokens.sample.flatten() == sample).nonzero()[:, 0]
            sample_tokens = extract_sample(tokens, members)
            pairs = [torch.searchsorted(members, values[in_sample]) for values in (slots, carriers)]
            key = (targets.of_encoder, repr(graphs), layout_key(sample_tokens, pairs))
            if key in self._safe:
                continue
            self.searched += 1
            leaking = reach(graphs, sample_tokens)[0, pairs[0], pairs[1]]
            yield from zip(slots[in_sample][leaking].tolist(), carriers[in_sample][leaking].tolist())
            self._safe.add(key)


def carried(tokens: Tokens, targets: Targets) -> tuple[Int[Tensor, "t"], Int[Tensor, "t"]]:
    """Returns (slots, carriers): the supervised slots whose carrier is in the same sample, and the slots of these
    carriers. Carriers in other samples cannot leak, because attention stays within a sample."""
    if targets.carriers is None:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    slots = torch.arange(len(targets.carriers)) if targets.slots is None else targets.slots
    samples = tokens.sample.flatten()
    kept = (targets.carriers >= 0) & (samples[targets.carriers.clamp(min=0)] == samples[slots]) & (samples[slots] > 0)
    return slots[kept], targets.carriers[kept]


def proven(tokens: Tokens, slots: Tensor, carriers: Tensor, graphs: Sequence[Graph]) -> Bool[Tensor, "t"]:
    """Returns for each of `slots` whether the declarations of the graphs (`Graph.ahead`, one graph per layer) prove
    that the slot cannot depend on its carrier, the token that contains its target. The proof succeeds if two conditions
    hold on at least one axis: the carrier comes after the slot, and after all tokens of the same sample that belong to
    an input which earlier tokens may read. A token without a coordinate on an axis is at infinity on this axis."""
    safe, sample = torch.zeros(len(slots), dtype=torch.bool), tokens.sample.flatten()
    for axis in range(tokens.position.shape[-1]):
        ahead = [graph.ahead(axis) for graph in set(graphs)]
        if any(inputs is None for inputs in ahead):
            continue
        order = tokens.position[..., axis].flatten().nan_to_num(nan=torch.inf)
        last = torch.full((int(sample.max()) + 1,), -torch.inf)
        for number in frozenset().union(*ahead):
            of_input = tokens.input.flatten() == number
            last = last.scatter_reduce(0, sample[of_input], order[of_input], "amax")
        safe |= order[carriers] > torch.maximum(order[slots], last[sample[slots]])
    return safe


def leak(task: str, token: int, slot: int) -> LeakError:
    """Returns the error that a task predicts a token at a slot that can read this token."""
    return LeakError(
        f"model.attention leaks: task {task!r} predicts token {token} at slot {slot}, which can read that token. With "
        "'causal & same_sample' no token reads later tokens. Put inputs that all tokens may read first (with "
        "data.order: seconds, by a negative offset such as -1)."
    )


def with_operands(graphs: Iterable[Graph]) -> Iterator[Graph]:
    """Yields the graphs, their operands, the operands of these, and so on."""
    for graph in graphs:
        yield graph
        yield from with_operands(operands(graph))


def unproven_classes(module: nn.Module, graphs: Iterable[Graph] = ()) -> list[str]:
    """Returns the names of the classes of a module, of the modules inside it, and of graphs, whose code may read other
    tokens than the attention graph allows: user-defined classes, and blocks that do not attend along the graph."""
    parts = [*module.modules(), *with_operands(graphs)]
    unproven = [part for part in parts if is_user_defined(part) or not getattr(part, "attends", True)]
    return list(dict.fromkeys(type(part).__name__ for part in unproven))


def check_declared(declared: Collection[Graph], tokens: Tokens) -> None:
    """Raises LeakError if a user-defined graph has an edge in a batch that its method `ahead` excludes: an earlier
    token reads a later token of an input that is not in the result."""
    for row in range(tokens.shape[0]):
        of_row = tokens.select(slice(row, row + 1))
        for graph, axis in product(declared, range(tokens.position.shape[-1])):
            inputs, order = graph.ahead(axis), of_row.position[0, :, axis].nan_to_num(nan=torch.inf)
            if inputs is None:
                continue
            is_ahead = dense_mask(graph, of_row, of_row)[0] & (order[:, None] < order)
            excluded = is_ahead & ~torch.isin(of_row.input[0], torch.tensor([*inputs], dtype=torch.long))
            for reader, read in excluded.nonzero().tolist():
                raise LeakError(
                    f"model.attention: {type(graph).__name__}.ahead({axis}) returns {set(inputs) or '{}'}, but by its "
                    f"edges token {reader} reads the later token {read} of input {int(of_row.input[0, read])}; correct "
                    "`ahead`, or return None"
                )


def extract_sample(tokens: Tokens, slots: Tensor) -> Tokens:
    """Returns the tokens in these slots (row * n + column), which belong to one sample, as a set of one row. Running
    orders count from the first token of the sample."""
    n = tokens.shape[1]
    return within_samples(tokens.select(slots[None] // n, slots[None] % n))


def layout_key(tokens: Tokens, pairs: Sequence[Tensor]) -> bytes:
    """Returns a digest of the descriptors of one sample and of `pairs` (supervised slots, carriers). Two samples with
    equal digests have the same leaks."""
    items = tokens.item - tokens.item.min()
    digest = hashlib.blake2b(digest_size=16)  # short, because many layouts are stored
    for tensor in (tokens.input, items, tokens.position, *pairs):
        digest.update(repr((tensor.shape, tensor.dtype)).encode() + tensor.contiguous().numpy().tobytes())
    return digest.digest()


def leaks(batch: Batch, main: Sequence[Graph], encoder: Sequence[Graph] = ()) -> dict[str, list[tuple[int, int]]]:
    """Returns the leaks of each task by its name, as pairs (supervised slot, carrier) of slots row * n + column. All
    leaks are searched (`mask.reach`)."""
    pairs = {}
    for task, targets in batch.targets.items():
        tokens, graphs = batch.set_of(targets).tokens, encoder if targets.of_encoder else main
        slots, carriers = carried(tokens, targets)
        n = tokens.shape[1]
        leaking = reach(graphs, tokens)[slots // n, slots % n, carriers % n]
        pairs[task] = list(zip(slots[leaking].tolist(), carriers[leaking].tolist()))
    return pairs


def unused_inputs(batch: Batch, main: Sequence[Graph]) -> list[int]:
    """Returns the numbers (from 1) of the inputs in the main set on which no supervised slot depends through all
    layers. For example, with `causal` and a predicted action at each time step, an instruction after the last action is
    unused. Only samples with a supervised slot in the first `CHECKED_ROWS` rows are searched. Returns an empty list if
    no target refers to the main set."""
    main_targets = [targets for targets in batch.targets.values() if not targets.of_encoder]
    if not main_targets:
        return []
    n = batch.main.tokens.shape[1]
    tokens = batch.main.tokens.select(slice(CHECKED_ROWS))
    is_supervised = torch.zeros(batch.main.tokens.sample.numel(), dtype=torch.bool)
    for targets in main_targets:
        is_supervised[slice(None) if targets.slots is None else targets.slots] = True
    present, used = set(), set()
    for row, supervised in enumerate(is_supervised.view(-1, n)[:CHECKED_ROWS] & (tokens.sample > 0)):
        row_tokens = tokens.select(torch.full((1, n), row), torch.arange(n)[None])
        reached = reach(main, row_tokens)[0, supervised].any(0)
        present |= set(row_tokens.input[0, torch.isin(row_tokens.sample[0], row_tokens.sample[0, supervised])].tolist())
        used |= set(row_tokens.input[0, reached].tolist())
    return sorted(present - used - {CORE})
