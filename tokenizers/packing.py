"""Packing: samples of any mix of inputs, planned into rows from their token counts before anything is embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.batch import Chunks, SetPlan
from ..models.tokens import CORE, Tokens
from .base import Chopper, Chunk

Sample = Sequence[tuple[str, Any]]
"""One sample: (input name, item) pairs in the order in which their tokens join the set."""
Chopped = Sequence[tuple[str, Chunk]]
"""The same, with every item chopped."""


def first_fit(counts: Sequence[int], context: int) -> list[int]:
    """The row of each sample: longest samples first, each in the first row with room for it (Johnson 1973).

    Raises ValueError for a sample longer than a row.
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
"""Row lengths that are tried for every batch."""
EVEN = 512
"""Tokens in a row at which attention costs as much as all else: about right for a core of 128 wide, too few for a wider one."""


def cheapest_rows(counts: Sequence[int], context: int) -> list[int]:
    """The row of each sample, packed into rows of the length that costs least to compute: all rows are as long as the fullest
    one, from the longest sample to the context, or to two of the longest samples. Raises ValueError as `first_fit` does."""
    if not counts:
        return []
    longest = max(counts)
    lengths = [context]
    if longest <= context:
        lengths += np.linspace(longest, max(context, 2 * longest), TRIED).astype(int).tolist()
    tried = [first_fit(counts, length) for length in lengths]
    return min(tried, key=lambda rows: _cost(rows, counts))


def _cost(rows: Sequence[int], counts: Sequence[int]) -> float:
    used = np.bincount(rows, weights=counts, minlength=1)
    return float(len(used) * used.max() * (EVEN + used.max()))


def pack(
    samples: Sequence[Sample], choppers: Mapping[str, Chopper], context: int,
    axes: Sequence[str] = ("order",), rows: Sequence[int] | None = None,
) -> SetPlan:  # fmt: skip
    """Chop samples and plan their slots in rows of `context` tokens; see `place`."""
    chopped = [[(name, choppers[name].chop(item)) for name, item in sample] for sample in samples]
    return place(chopped, choppers, context, axes, rows=rows)


def place(
    chopped: Sequence[Chopped], choppers: Mapping[str, Chopper], context: int, axes: Sequence[str] = ("order",), *,
    rows: Sequence[int] | None = None, own: int = 0, trim: bool = False, right: bool = False,
) -> SetPlan:  # fmt: skip
    """Plan the slots of chopped samples in rows of `context` tokens; with `trim`, in as short ones as cost least.

    Inputs are numbered from 1 in the order of `choppers`; `axes` are the set's position axes; `rows` fixes each
    sample's row (so that a second set stands beside the first). Every sample begins with `own` tokens of the core. `trim` cuts
    off columns that no row uses; `right` puts the padding in front.
    """
    counts = [own + sum(chunk.count for _, chunk in sample) for sample in chopped]
    if rows is None:
        rows = cheapest_rows(counts, context) if trim else first_fit(counts, context)
    used = [0] * (max(rows, default=0) + 1)
    starts = []
    for row, count in zip(rows, counts):
        starts.append(used[row])
        used[row] += count
    n = max(1, *used) if trim else context
    if right:
        starts = [start + n - used[row] for row, start in zip(rows, starts)]
    return _laid_out(chopped, choppers, tuple(axes), (len(used), n), [row * n + s for row, s in zip(rows, starts)], own)


def _laid_out(chopped, choppers, axes, shape, starts: list[int], own: int) -> SetPlan:
    """The set in which sample number i stands at the flat place `starts[i]` and after."""
    runs: list[tuple[int, int, int, int, int]] = []  # place, length, input, sample, item
    placed: dict[str, list[tuple[Chunk, int]]] = {}
    numbers = {name: number for number, name in enumerate(choppers, start=1)}
    item = 0
    for sample, (start, parts) in enumerate(zip(starts, chopped), start=1):
        if own:
            item += 1
            runs.append((start, own, CORE, sample, item))
        here = start + own
        for name, chunk in parts:
            item += 1
            runs.append((here, chunk.count, numbers[name], sample, item))
            placed.setdefault(name, []).append((chunk, here))
            here += chunk.count
    tokens = _descriptors(shape, runs, len(axes))
    chunks = {name: _pieces(choppers[name], placed[name]) for name in choppers if name in placed}
    for name in chunks:
        check_axes(name, choppers[name], chunks[name].coordinates)
        _write_coordinates(tokens, chunks[name], [axes.index(axis) for axis in choppers[name].axes])
    own_places = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(own) if own else None
    return SetPlan(tokens=tokens, chunks=chunks, own=own_places, samples=len(chopped))


def _descriptors(shape: tuple[int, int], runs: Sequence[tuple[int, int, int, int, int]], axes: int) -> Tokens:
    """The descriptors of a set made of runs of tokens: (first place, length, input, sample, item)."""
    place, length, *values = torch.tensor(runs, dtype=torch.long).reshape(-1, 5).unbind(1)
    where = spread(place, length)
    fields = [torch.zeros(shape[0] * shape[1], dtype=torch.long) for _ in values]
    for field, value in zip(fields, values):
        field[where] = value.repeat_interleave(length)
    position = torch.full((*shape, axes), torch.nan)
    position[..., 0] = torch.arange(shape[1])
    input, sample, item = (field.view(shape) for field in fields)
    return Tokens(input=input, sample=sample, item=item, position=position)


def spread(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, ... for `length` numbers, one run after another."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1]) if len(ends) else 0) + (starts - ends + lengths).repeat_interleave(lengths)


def check_axes(name: str, chopper: Chopper, coordinates: Tensor | None) -> None:
    """Raises ValueError where an input's chunks have coordinates on other axes than its chopper names."""
    if coordinates is not None and coordinates.shape[1] != len(chopper.axes):
        named = f"name {', '.join(chopper.axes)}" if chopper.axes else "name none"
        raise ValueError(
            f"inputs.{name}: {type(chopper).__name__}.chop gives coordinates on {coordinates.shape[1]} axes, but its `axes` "
            f"{named}, so that no position would use them; name each, such as axes = ('seconds',)"
        )


def _write_coordinates(tokens: Tokens, chunks: Chunks, axes: list[int]) -> None:
    if axes and chunks.coordinates is not None:
        flat = tokens.position.view(-1, tokens.position.shape[-1])
        flat[chunks.slots[:, None], torch.tensor(axes)] = chunks.coordinates


def _pieces(chopper: Chopper, placed: Sequence[tuple[Chunk, int]]) -> Chunks:
    """One input's chunks, with what follows each id where they are ids."""
    found = [chunk for chunk, _ in placed]
    counts = torch.tensor([chunk.count for chunk in found])
    next_ids = coordinates = None
    if all(chunk.next_ids is not None for chunk in found):
        next_ids = torch.cat([chunk.next_ids for chunk in found])
    if all(chunk.coordinates is not None for chunk in found):
        coordinates = torch.cat([chunk.coordinates for chunk in found])
    return Chunks(
        values=chopper.collate(found), index=spread(torch.zeros_like(counts), counts), coordinates=coordinates,
        slots=spread(torch.tensor([place for _, place in placed]), counts), next_ids=next_ids, counts=counts,
        seeds=torch.tensor([chunk.seed for chunk in found]) if all(chunk.seed is not None for chunk in found) else None,
    )  # fmt: skip
