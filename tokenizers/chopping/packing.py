"""Packing: samples of any inputs, planned into rows by their token counts before anything is embedded."""

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
"""One sample: (input name, item) pairs in the order in which their tokens join the set."""
Chopped = Sequence[tuple[str, Chunk]]
"""One sample, chopped: (input name, chunk) pairs in the same order."""
Run = tuple[int, int, int, int, int]
"""The tokens of one item: their first slot, how many they are, and the input, sample and item that they share."""


def first_fit(counts: Sequence[int], context: int) -> list[int]:
    """The row of each sample: longest samples first, each in the first row with room for it (Johnson 1973).

    `first_fit([3, 5, 2, 4], context=7)` is [1, 0, 0, 1]. Raises ValueError for a sample longer than a row.
    """
    room = np.full(len(counts), context)
    rows = [0] * len(counts)
    for number in sorted(range(len(counts)), key=lambda each: -counts[each]):
        if counts[number] > context:
            raise ValueError(f"sample {number} has {counts[number]} tokens, more than the context of {context}")
        rows[number] = int((room >= counts[number]).argmax())
        room[rows[number]] -= counts[number]
    return rows


TRIED = 12
"""Row lengths that are tried for every batch, besides the context."""
EVEN = 512
"""Tokens in a row at which attention costs as much as all else: about right for a core of 128 wide, too few for a wider
one."""


def cheapest_rows(counts: Sequence[int], context: int) -> list[int]:
    """The row of each sample, in rows of the length that costs least to compute (`_cost`). Tried are the context, and
    lengths from the longest sample to twice that or the context, whichever is more. Raises ValueError for a sample
    longer than the context."""
    if not counts:
        return []
    longest = max(counts)
    lengths = [context]
    if longest <= context:
        lengths += np.linspace(longest, max(context, 2 * longest), TRIED).astype(int).tolist()
    return min((first_fit(counts, length) for length in lengths), key=lambda rows: _cost(rows, counts))


def _cost(rows: Sequence[int], counts: Sequence[int]) -> float:
    """Tokens, padding included, times (`EVEN` + the length of the fullest row): proportional to the computing time."""
    used = np.bincount(rows, weights=counts, minlength=1)
    return float(len(used) * used.max() * (EVEN + used.max()))


def pack(
    samples: Sequence[Sample], choppers: Mapping[str, Chopper], context: int,
    axes: Sequence[str] = ("order",), rows: Sequence[int] | None = None,
) -> SetPlan:  # fmt: skip
    """Chop samples, then plan their slots in rows of `context` tokens as `place` does."""
    parts = [[(name, chopped(name, choppers[name], item)) for name, item in sample] for sample in samples]
    return place(parts, choppers, context, axes, rows=rows)


def place(
    samples: Sequence[Chopped], choppers: Mapping[str, Chopper], context: int, axes: Sequence[str] = ("order",), *,
    rows: Sequence[int] | None = None, core: int = 0, trim: bool = False, right: bool = False, in_time: bool = False,
) -> SetPlan:  # fmt: skip
    """Plan the slots of chopped samples in rows of `context` tokens; with `trim`, of the length that costs least
    (`cheapest_rows`).

    Two samples in one row of 10, with `core=1` class token each: an image of two patches with the text "hi", and the
    text "x". The choppers are {"image": ..., "text": ...}; every text begins with its start token.

        slot     0      1      2      3      4      5      6      7      8      9
        token    class  patch  patch  start  h      i      class  start  x      -
        input    0      1      1      2      2      2      0      2      2      0
        sample   1      1      1      1      1      1      2      2      2      0
        item     1      2      2      3      3      3      4      5      5      0

        chunks["image"].slots  1 2             chunks["text"].slots   3 4 5 7 8
        chunks["image"].index  0 1             chunks["text"].index   0 1 2 0 1      .counts  3 2

    Inputs are numbered from 1 in the order of `choppers`, input 0 and sample 0 as in `Tokens`; `axes` are the set's
    position axes; `rows` fixes each sample's row (in the two sets of an encoder-decoder, a row per sample). Every
    sample begins with `core` class and register tokens. `trim` also cuts off columns that no row uses; `right` puts the
    padding in front. With `in_time` each sample's tokens are in the order of their seconds (`ordered_in_time`). Raises
    ValueError for a sample longer than a row.
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
    planned = _placed(samples, choppers, axes, (len(used), n), [row * n + c for row, c in zip(rows, columns)], core)
    return ordered_in_time(planned, axes.index(SECONDS)) if in_time and SECONDS in axes else planned


def ordered_in_time(planned: SetPlan, axis: int) -> SetPlan:
    """The set with every sample's tokens in the order of their seconds, the coordinates on `axis`, so that none reads
    its future along `causal`. States at 0 and 1 s, and actions 0.5 s later:

        by inputs    seconds  0    1    0.5  1.5        slots of states 0 1, of actions 2 3
        in time      seconds  0    0.5  1    1.5                        0 2             1 3

    Tokens of the same second stay in their order; core tokens stay in front; what has no time comes after everything,
    as in `causal(seconds)`.
    """
    tokens = planned.tokens
    shape, sample = tokens.shape, tokens.sample.flatten()
    seconds = tokens.position[..., axis].flatten().nan_to_num(nan=torch.inf)
    seconds = torch.where(tokens.input.flatten() == CORE, -torch.inf, seconds)
    block = torch.cat([torch.zeros(1, dtype=torch.long), (sample.diff() != 0).cumsum(0)])
    old = torch.from_numpy(np.lexsort((seconds.numpy(), block.numpy())))  # the slot whose token stands in each slot now
    new = torch.empty_like(old)
    new[old] = torch.arange(len(old))
    moved = {name: getattr(tokens, name).flatten()[old].view(shape) for name in ("input", "sample", "item")}
    position = tokens.position.flatten(0, 1)[old].view(tokens.position.shape)
    position[..., 0] = tokens.position[..., 0]
    chunks = {name: replace(each, slots=new[each.slots]) for name, each in planned.chunks.items()}
    return replace(planned, tokens=Tokens(**moved, position=position), chunks=chunks)


def _placed(samples, choppers, axes, shape, starts: Sequence[int], core: int) -> SetPlan:
    """The set in which sample i fills the slots from `starts[i]` on; `shape` is rows and slots."""
    runs: list[Run] = []
    placed: dict[str, list[tuple[Chunk, int]]] = {}
    numbers = {name: number for number, name in enumerate(choppers, start=1)}
    items = itertools.count(1)
    for sample, (slot, parts) in enumerate(zip(starts, samples), start=1):
        if core:
            runs.append((slot, core, CORE, sample, next(items)))
        slot += core
        for name, chunk in parts:
            runs.append((slot, chunk.count, numbers[name], sample, next(items)))
            placed.setdefault(name, []).append((chunk, slot))
            slot += chunk.count
    tokens = _descriptors(shape, runs, len(axes))
    chunks = {name: _chunks(choppers[name], placed[name]) for name in choppers if name in placed}
    for name, found in chunks.items():
        if choppers[name].stands_on and found.coordinates is not None:
            columns = torch.tensor([axes.index(axis) for axis in choppers[name].stands_on])
            tokens.position.view(-1, len(axes))[found.slots[:, None], columns] = found.coordinates
    core_slots = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(core) if core else None
    return SetPlan(tokens=tokens, chunks=chunks, own=core_slots, samples=len(samples))


def _descriptors(shape: tuple[int, int], runs: Sequence[Run], axes: int) -> Tokens:
    """The descriptors of a set of runs of tokens; all other slots are padding. `axes`: how many position axes."""
    slot, length, *values = torch.tensor(runs, dtype=torch.long).reshape(-1, 5).unbind(1)
    where = spread(slot, length)
    fields = [torch.zeros(shape[0] * shape[1], dtype=torch.long) for _ in values]
    for field, value in zip(fields, values):
        field[where] = value.repeat_interleave(length)
    position = torch.full((*shape, axes), torch.nan)
    position[..., 0] = torch.arange(shape[1])
    input, sample, item = (field.view(shape) for field in fields)
    return Tokens(input=input, sample=sample, item=item, position=position)


def spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """The ranges of `lengths` numbers from `starts` on, joined: starts (3, 7), lengths (2, 1) give 3, 4, 7."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1]) if len(ends) else 0) + (starts - ends + lengths).repeat_interleave(lengths)


def _chunks(chopper: Chopper, placed: Sequence[tuple[Chunk, int]]) -> Chunks:
    """One input's chopped items, each with its first slot, as its embedder takes them. Coordinates, next ids and seeds
    are None where any item lacks them."""
    items = [chunk for chunk, _ in placed]
    counts = torch.tensor([chunk.count for chunk in items])

    def joined(name: str) -> Tensor | None:
        values = [getattr(chunk, name) for chunk in items]
        return None if any(value is None for value in values) else torch.cat(values)

    seeds = [chunk.seed for chunk in items]
    return Chunks(
        values=chopper.collate(items), index=spread(torch.zeros_like(counts), counts),
        coordinates=joined("coordinates"), slots=spread(torch.tensor([slot for _, slot in placed]), counts),
        next_ids=joined("next_ids"), counts=counts,
        seeds=None if None in seeds else torch.tensor(seeds), inner=chopper.inner(items),
    )  # fmt: skip
