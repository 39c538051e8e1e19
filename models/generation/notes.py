"""Notes: what a text has between two marks, which later tokens may read however far they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

AXIS = "note"
"""The position axis on which the tokens of notes have a coordinate: `attention: causal & (window(64) | on(note))`."""


@dataclass(frozen=True)
class Notes:
    """The ids that open and close a note."""

    open: int
    close: int

    def numbers(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The number of the note, from 0, that each token of every row is in, marks included; NaN in none. A token's
        number depends on the ids up to its own alone. With the marks 8 and 9:

            ids      5    8    1    9    5    8    2
            numbers  nan  0    0    0    nan  1    1
        """
        place = torch.arange(1, ids.shape[1] + 1)
        opened = ((ids == self.open) * place).cummax(dim=1).values
        closed = ((ids == self.close) * place).cummax(dim=1).values
        closed_before = torch.nn.functional.pad(closed, (1, 0))[:, :-1]
        number = (ids == self.open).cumsum(dim=1) - 1
        return torch.where(opened > closed_before, number.float(), torch.nan)

    def carried(self, ids: Int[Tensor, "b n"], count: int) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
        """The last `count` ids of each row, less as many as stand in notes before them, and these notes in front (of
        them at most half of `count`, the newest); with the numbers of their notes. Shorter rows have -1 in front."""
        numbers, n, half, rows = self.numbers(ids), ids.shape[1], count // 2, []
        for row, number in zip(ids, numbers):
            old = (~number[: max(n - half, 0)].isnan()).nonzero()[:, 0]
            old = old[max(len(old) - half, 0) :]
            tail = max(n - (count - len(old)), 0)
            places = torch.cat([old[old < tail], torch.arange(tail, n)])
            rows.append((row[places], number[places]))
        longest = max(len(row) for row, _ in rows)
        padded = [(longest - len(row), 0) for row, _ in rows]
        pad = torch.nn.functional.pad
        kept = torch.stack([pad(row, size, value=-1) for (row, _), size in zip(rows, padded)])
        return kept, torch.stack([pad(number, size, value=torch.nan) for (_, number), size in zip(rows, padded)])
