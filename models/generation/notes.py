"""Notes: the parts of a text between two special ids. With a suitable `attention`, all later tokens read the notes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

AXIS = "note"
"""The name of the position axis on which only the tokens of notes have a coordinate. With `attention: causal &
(window(64) | on(note))` a token reads the last 64 tokens and all earlier notes."""


@dataclass(frozen=True)
class Notes:
    """The special id that opens a note and the special id that closes a note."""

    open: int
    close: int

    def numbers(self, ids: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """Returns for each token the number of its note, from 0; NaN outside of notes. The special ids belong to the
        note. The number depends only on the ids up to the token. Example with the special ids 8 and 9:

            ids      5    8    1    9    5    8    2
            numbers  nan  0    0    0    nan  1    1
        """
        index = torch.arange(1, ids.shape[1] + 1)
        last_open = ((ids == self.open) * index).cummax(dim=1).values
        last_close = ((ids == self.close) * index).cummax(dim=1).values
        previous_close = torch.nn.functional.pad(last_close, (1, 0))[:, :-1]
        number = (ids == self.open).cumsum(dim=1) - 1
        return torch.where(last_open > previous_close, number.float(), torch.nan)

    def shorten(self, ids: Int[Tensor, "b n"], count: int) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
        """Returns (ids, numbers). Each row of `ids` has at most `count` ids: the newest ids of earlier notes (at most
        half of `count`), followed by the last ids of the row. `numbers` has the number of the note of each of these ids
        (NaN: none). At the start, shorter rows are padded: `ids` with -1, `numbers` with NaN."""
        numbers, n, half, rows = self.numbers(ids), ids.shape[1], count // 2, []
        for row, number in zip(ids, numbers):
            in_notes = (~number[: max(n - half, 0)].isnan()).nonzero()[:, 0]
            in_notes = in_notes[max(len(in_notes) - half, 0) :]
            tail = max(n - (count - len(in_notes)), 0)
            columns = torch.cat([in_notes[in_notes < tail], torch.arange(tail, n)])
            rows.append((row[columns], number[columns]))
        longest = max(len(row) for row, _ in rows)
        sizes = [(longest - len(row), 0) for row, _ in rows]
        pad = torch.nn.functional.pad
        kept = torch.stack([pad(row, size, value=-1) for (row, _), size in zip(rows, sizes)])
        return kept, torch.stack([pad(number, size, value=torch.nan) for (_, number), size in zip(rows, sizes)])
