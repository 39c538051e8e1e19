"""Packing: samples of any mix of inputs, planned into rows from their token counts before anything is embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..models.batch import IGNORED, Pieces, PlannedSet
from ..models.token_set import Tokens
from ..tokenizers.chopper import Chopper, Piece

Sample = Sequence[tuple[str, Any]]
"""One sample: (input name, raw item) pairs in the order in which their tokens join the set."""


def first_fit(counts: Sequence[int], context: int) -> list[int]:
    """The row of each sample: the first row with room for it. Raises ValueError for one longer than a row."""
    room: list[int] = []
    rows = []
    for number, count in enumerate(counts):
        if count > context:
            raise ValueError(f"sample {number} has {count} tokens, more than the context of {context}")
        row = next((row for row, left in enumerate(room) if left >= count), len(room))
        if row == len(room):
            room.append(context)
        room[row] -= count
        rows.append(row)
    return rows


def pack(
    samples: Sequence[Sample], choppers: Mapping[str, Chopper], context: int,
    axes: Sequence[str] = ("order",), rows: Sequence[int] | None = None,
) -> PlannedSet:  # fmt: skip
    """Chop samples and plan their places in rows of `context` tokens.

    Inputs are numbered from 1 in the order of `choppers`; `axes` are the set's position axes; `rows` fixes each
    sample's row (so that a second set stands beside the first), by default the first with room.
    """
    chopped = [[(name, choppers[name].chop(item)) for name, item in sample] for sample in samples]
    counts = [sum(len(piece) for _, piece in sample) for sample in chopped]
    rows = first_fit(counts, context) if rows is None else rows
    layout = _Layout(max(rows, default=0) + 1, context, axes)
    numbers = {name: number for number, name in enumerate(choppers, start=1)}
    placed: dict[str, list[tuple[Piece, Tensor]]] = {}
    for sample, (row, parts) in enumerate(zip(rows, chopped), start=1):
        for name, piece in parts:
            places = layout.put(row, sample, numbers[name], piece, choppers[name].axes)
            placed.setdefault(name, []).append((piece, places))
    pieces = {name: _pieces(choppers[name], placed[name]) for name in choppers if name in placed}
    return PlannedSet(tokens=layout.tokens, pieces=pieces)


class _Layout:
    """The descriptors of rows that are being filled."""

    def __init__(self, rows: int, context: int, axes: Sequence[str]):
        shape = (rows, context)
        self.axes, self.used, self.spans = tuple(axes), [0] * rows, 0
        position = torch.full((*shape, len(axes)), torch.nan)
        position[..., 0] = torch.arange(context)
        self.tokens = Tokens(
            input=torch.zeros(shape, dtype=torch.long), sample=torch.zeros(shape, dtype=torch.long),
            span=torch.zeros(shape, dtype=torch.long), position=position,
        )  # fmt: skip

    def put(self, row: int, sample: int, input: int, piece: Piece, axes: Sequence[str]) -> Tensor:
        """Place one span at the end of a row; gives the flat places of its tokens."""
        start, end = self.used[row], self.used[row] + len(piece)
        self.used[row], self.spans = end, self.spans + 1
        for field, value in (("input", input), ("sample", sample), ("span", self.spans)):
            getattr(self.tokens, field)[row, start:end] = value
        for axis, name in enumerate(axes):
            if piece.coordinates is not None:
                self.tokens.position[row, start:end, self.axes.index(name)] = piece.coordinates[:, axis]
        return torch.arange(start, end) + row * self.tokens.shape[1]


def _pieces(chopper: Chopper, placed: Sequence[tuple[Piece, Tensor]]) -> Pieces:
    """One input's pieces, with what follows each id where they are ids."""
    values = chopper.collate([piece for piece, _ in placed])
    following = None
    if not values.is_floating_point():
        ends = [torch.cat([piece.values[1:], torch.tensor([IGNORED])]) for piece, _ in placed]
        following = torch.cat(ends)
    return Pieces(
        values=values, index=torch.cat([torch.arange(len(piece)) for piece, _ in placed]),
        places=torch.cat([places for _, places in placed]), following=following,
    )  # fmt: skip
