"""Packing: samples are assigned to the rows of a batch by their numbers of tokens, before anything is embedded. A slot
is a position in a row."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...models.batch import Chunks, SetPlan
from ...models.tokens import CORE, Tokens
from ..base import SECONDS, Chopper, Chunk, chopped

Sample = Sequence[tuple[str, Any]]
"""One sample: (input name, item) pairs in the order of their tokens in the set."""
Chopped = Sequence[tuple[str, Chunk]]
"""One chopped sample: (input name, chunk) pairs in the order of their tokens in the set."""
Run = tuple[int, int, int, int, int]
"""The tokens of one item: (first slot, number of tokens, number of the input, number of the sample, number of the
item)."""


def first_fit(counts: Sequence[int], context: int) -> list[int]:
    """Returns the row of each sample. Samples are assigned in order of decreasing length, each to the first row with
    enough free slots (Johnson 1973). `counts` are the numbers of tokens of the samples; a row has `context` slots.

    `first_fit([3, 5, 2, 4], context=7)` is [1, 0, 0, 1]. Raises ValueError if a sample has more than `context` tokens.
    """
    if counts and min(counts) == max(counts) and 0 < counts[0] <= context:  # images of one size
        return [sample // (context // counts[0]) for sample in range(len(counts))]
    free = np.full(len(counts), context)
    rows = [0] * len(counts)
    for sample in sorted(range(len(counts)), key=lambda index: -counts[index]):
        if counts[sample] > context:
            raise ValueError(f"sample {sample} has {counts[sample]} tokens, more than the context of {context}")
        rows[sample] = int((free >= counts[sample]).argmax())
        free[rows[sample]] -= counts[sample]
    return rows


CANDIDATES = 12
"""The number of row lengths that are compared for every batch, in addition to the context."""
BREAK_EVEN = 512
"""The row length, in tokens, at which attention costs as much as all other layers together. The value is that of a core
of width 128. For a wider core the true value is larger."""


def cheapest_rows(counts: Sequence[int], context: int) -> list[int]:
    """Returns the row of each sample, for the row length with the lowest computing cost (`_cost`). The candidates are
    the context, and `CANDIDATES` lengths from the longest sample to the larger one of the context and twice the longest
    sample. Raises ValueError if a sample has more than `context` tokens."""
    if not counts:
        return []
    longest = max(counts)
    lengths = [context]
    if longest <= context:
        lengths += np.linspace(longest, max(context, 2 * longest), CANDIDATES).astype(int).tolist()
    return min((first_fit(counts, length) for length in lengths), key=lambda rows: _cost(rows, counts))


def _cost(rows: Sequence[int], counts: Sequence[int]) -> float:
    """Returns the computing cost up to a constant factor: number of slots (padding included) * (`BREAK_EVEN` + row
    length)."""
    used = np.bincount(rows, weights=counts, minlength=1)
    return float(len(used) * used.max() * (BREAK_EVEN + used.max()))


def pack(
    samples: Sequence[Sample], choppers: Mapping[str, Chopper], context: int,
    axes: Sequence[str] = ("order",), rows: Sequence[int] | None = None,
) -> SetPlan:  # fmt: skip
    """Chops samples, then assigns their tokens to slots with `place`."""
    parts = [[(name, chopped(name, choppers[name], item)) for name, item in sample] for sample in samples]
    return place(parts, choppers, context, axes, rows=rows)


def place(
    samples: Sequence[Chopped], choppers: Mapping[str, Chopper], context: int, axes: Sequence[str] = ("order",), *,
    rows: Sequence[int] | None = None, core: int = 0, trim: bool = False, right: bool = False,
) -> SetPlan:  # fmt: skip
    """Returns the set of chopped samples, whose tokens are assigned to slots in rows of `context` slots.

    Example: two samples in one row of 10, each with `core=1` class token: an image of two patches with the text "hi",
    and the text "x". The choppers are {"image": ..., "text": ...}; every text begins with its start token.

        slot     0      1      2      3      4      5      6      7      8      9
        token    class  patch  patch  start  h      i      class  start  x      -
        input    0      1      1      2      2      2      0      2      2      0
        sample   1      1      1      1      1      1      2      2      2      0
        item     1      2      2      3      3      3      4      5      5      0

        chunks["image"].slots  1 2             chunks["text"].slots   3 4 5 7 8
        chunks["image"].index  0 1             chunks["text"].index   0 1 2 0 1      .counts  3 2

    Inputs are numbered from 1 in the order of `choppers`. Input 0 is the core and padding, sample 0 is padding. Raises
    ValueError if a sample has more than `context` tokens, unless `rows` is given.

        axes   position axes of the set
        rows   the row of each sample; None: chosen here. An encoder-decoder has one row per sample in both sets
        core   number of class and register tokens at the start of each sample
        trim   choose the cheapest row length (`cheapest_rows`) unless `rows` is given, and drop unused columns
        right  align rows to the right, with the padding first
    """
    counts = [core + sum(chunk.count for _, chunk in sample) for sample in samples]
    if rows is None:
        rows = cheapest_rows(counts, context) if trim else first_fit(counts, context)
    used = [0] * (max(rows, default=0) + 1)
    columns = []
    for row, count in zip(rows, counts):
        columns.append(used[row])
        used[row] += count
    n = max(1, *used) if trim else context
    if right:
        columns = [column + n - used[row] for row, column in zip(rows, columns)]
    return _plan(samples, choppers, axes, (len(used), n), [row * n + c for row, c in zip(rows, columns)], core)


def ordered_in_time(planned: SetPlan, axes: Sequence[str]) -> SetPlan:
    """Returns the set with the tokens of every sample sorted by time; the unchanged set if `axes`, the position axes,
    do not contain `seconds`. In the sorted set the graph `causal` lets no token attend to the future. Example: states
    at 0 and 1 s, actions 0.5 s later:

        by input    seconds  0    1    0.5  1.5        slots of states 0 1, of actions 2 3
        by time     seconds  0    0.5  1    1.5                        0 2             1 3

    The order of tokens with equal times does not change. Core tokens remain first, and tokens without a time become the
    last ones, like in `causal(seconds)`.
    """
    if SECONDS not in axes:
        return planned
    tokens = planned.tokens
    shape, sample = tokens.shape, tokens.sample.flatten()
    seconds = tokens.position[..., axes.index(SECONDS)].flatten().nan_to_num(nan=torch.inf)
    seconds = torch.where(tokens.input.flatten() == CORE, -torch.inf, seconds)
    block = torch.cat([torch.zeros(1, dtype=torch.long), (sample.diff() != 0).cumsum(0)])
    old = torch.from_numpy(np.lexsort((seconds.numpy(), block.numpy())))  # the old slot of the token in each new slot
    new = torch.empty_like(old)
    new[old] = torch.arange(len(old))
    fields = {name: getattr(tokens, name).flatten()[old].view(shape) for name in ("input", "sample", "item")}
    position = tokens.position.flatten(0, 1)[old].view(tokens.position.shape)
    position[..., 0] = tokens.position[..., 0]
    moved = {name: replace(chunks, slots=new[chunks.slots]) for name, chunks in planned.chunks.items()}
    return replace(planned, tokens=Tokens(**fields, position=position), chunks=moved)


def _plan(samples, choppers, axes, shape, starts: Sequence[int], core: int) -> SetPlan:
    """Returns the set in which sample i begins at slot `starts[i]` (slots are numbered row after row). `shape` is
    (rows, slots per row)."""
    runs: list[Run] = []
    chunk_slots: dict[str, list[tuple[Chunk, int]]] = {}
    numbers = {name: number for number, name in enumerate(choppers, start=1)}
    items = itertools.count(1)
    for sample, (slot, parts) in enumerate(zip(starts, samples), start=1):
        if core:
            runs.append((slot, core, CORE, sample, next(items)))
        slot += core
        for name, chunk in parts:
            runs.append((slot, chunk.count, numbers[name], sample, next(items)))
            chunk_slots.setdefault(name, []).append((chunk, slot))
            slot += chunk.count
    tokens = _descriptors(shape, runs, len(axes))
    chunks = {name: _chunks(choppers[name], chunk_slots[name]) for name in choppers if name in chunk_slots}
    for name, input_chunks in chunks.items():
        if choppers[name].coordinate_axes and input_chunks.coordinates is not None:
            columns = torch.tensor([axes.index(axis) for axis in choppers[name].coordinate_axes])
            tokens.position.view(-1, len(axes))[input_chunks.slots[:, None], columns] = input_chunks.coordinates
    core_slots = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(core) if core else None
    return SetPlan(tokens=tokens, chunks=chunks, core_slots=core_slots, samples=len(samples))


def _descriptors(shape: tuple[int, int], runs: Sequence[Run], axes: int) -> Tokens:
    """Returns the token descriptors of a set with these runs of tokens. All other slots are padding. `axes` is the
    number of position axes."""
    slot, length, *values = torch.tensor(runs, dtype=torch.long).reshape(-1, 5).unbind(1)
    slots = concatenated_ranges(slot, length)
    fields = [torch.zeros(shape[0] * shape[1], dtype=torch.long) for _ in values]
    for field, value in zip(fields, values):
        field[slots] = value.repeat_interleave(length)
    position = torch.full((*shape, axes), torch.nan)
    position[..., 0] = torch.arange(shape[1])
    input, sample, item = (field.view(shape) for field in fields)
    return Tokens(input=input, sample=sample, item=item, position=position)


def concatenated_ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Returns concatenated ranges. Range i has `lengths[i]` numbers and begins with `starts[i]`: (3, 7), (2, 1) -> 3,
    4, 7."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1]) if len(ends) else 0) + (starts - ends + lengths).repeat_interleave(lengths)


def _chunks(chopper: Chopper, chunk_slots: Sequence[tuple[Chunk, int]]) -> Chunks:
    """Returns the input of an embedder for pairs (chunk, first slot). Each of `coordinates`, `next_ids` and `seeds` is
    None if it is missing in at least one chunk."""
    items = [chunk for chunk, _ in chunk_slots]
    counts = torch.tensor([chunk.count for chunk in items])

    def joined(name: str) -> Tensor | None:
        values = [getattr(chunk, name) for chunk in items]
        return None if any(value is None for value in values) else torch.cat(values)

    seeds = [chunk.seed for chunk in items]
    return Chunks(
        values=chopper.collate(items), index=concatenated_ranges(torch.zeros_like(counts), counts),
        coordinates=joined("coordinates"), next_ids=joined("next_ids"), counts=counts,
        slots=concatenated_ranges(torch.tensor([slot for _, slot in chunk_slots]), counts),
        seeds=None if None in seeds else torch.tensor(seeds), inner=chopper.inner(items),
    )  # fmt: skip
