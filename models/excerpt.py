"""Excerpts of a batch for the leak probe (`probe.py`): which tokens are changed, and which outputs may change then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .attention.graph import Graph
from .attention.mask import reach
from .batch import Batch, Targets
from .leaks import carried
from .tokens import PADDING, Tokens

PROBED, PROBED_ROWS = 16, 4
"""The maximum numbers of chosen tokens, and of rows of the batch that contain them."""
COLUMNS = 256
"""The maximum number of columns of an excerpt."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Excerpt:
    """Neighbouring columns of one row of a set: the tokens that are changed, and the outputs that are compared."""

    tokens: Tokens
    """The descriptors of the n columns, (1, n)."""
    slots: Int[Tensor, "n"]
    """The slot of each column in the batch, (n)."""
    supervised: Bool[Tensor, "n"]
    """Whether the output of a column is supervised."""
    allowed: Bool[Tensor, "n n"]
    """`allowed[i, j]`: whether the output of column i may depend on the token of column j."""
    chosen: Sequence[int]
    """The columns that are changed, the most important ones first."""

    def select(self, columns: Int[Tensor, "m"]) -> Excerpt:
        """Returns the excerpt with only these columns."""
        new = {column: number for number, column in enumerate(columns.tolist())}
        return Excerpt(
            tokens=self.tokens.select(slice(None), columns), slots=self.slots[columns],
            supervised=self.supervised[columns], allowed=self.allowed[columns][:, columns],
            chosen=[new[column] for column in self.chosen if column in new],
        )  # fmt: skip

    def choosing(self, wanted: Bool[Tensor, "n"], count: int) -> Excerpt:
        """Returns the excerpt with at most `count` chosen columns for which `wanted` is true: those that were chosen
        before, then further ones."""
        columns = [column for column in self.chosen if wanted[column]]
        more = evenly_spaced(wanted.nonzero()[:, 0].tolist(), count)
        return replace(self, chosen=[*dict.fromkeys(columns + more)][:count])


def excerpts(
    batch: Batch, targets: Mapping[str, Targets], graphs: Sequence[Graph], of_encoder: bool, columns: int = COLUMNS
) -> list[Excerpt]:
    """Returns excerpts of the main set (or of the encoder's set) in a batch that is not planned. They have at most
    `columns` columns each, and together at most `PROBED` chosen tokens: the first token of the next sample in a packed
    row and the token before it, carriers of targets for each input, and supervised slots."""
    tokens = (batch.encoder if of_encoder else batch.main).tokens
    (b, n), sample, numbers = tokens.shape, tokens.sample.flatten(), tokens.input.flatten()
    supervised, strict, carriers = (torch.zeros(b * n, dtype=torch.bool) for _ in range(3))
    if of_encoder:
        supervised |= sample != PADDING
    for task in targets.values():
        if task.of_encoder != of_encoder:
            continue
        slots = torch.arange(b * n) if task.slots is None else task.slots
        found = carried(tokens, task)[1]
        supervised[slots] = carriers[found] = True
        if len(found) or not (of_encoder or task.groups is not None or task.lengths is not None):
            strict[slots] = True
    supervised, strict = supervised & (sample != PADDING), strict & (sample != PADDING)
    before = torch.roll(tokens.sample, 1, dims=1)
    begins = (tokens.sample != before) & (tokens.sample != PADDING) & (before != PADDING)
    begins[:, 0] = False
    ends = torch.roll(begins, -1, dims=1)
    kinds = [
        begins.flatten(),
        ends.flatten(),
        *(carriers & (numbers == number) for number in numbers[carriers].unique()),
        strict,
    ]
    kinds = torch.stack(kinds).view(-1, b, n)
    found, missing = [], kinds.any(2)
    while missing.any() and len(found) < PROBED_ROWS:
        found.append(int(missing.sum(0).argmax()))
        missing &= ~missing[:, found[-1], None]
    results = []
    for row in found:
        first = int(kinds[0 if kinds[0, row].any() else slice(None), row].reshape(-1, n).any(0).nonzero()[0, 0])
        start = max(min(first - columns // 2, n - columns), 0)
        part = slice(start, start + columns)
        of_row = tokens.select(slice(row, row + 1), part)
        here = slice(row * n + start, row * n + min(start + columns, n))
        same_sample = of_row.sample[0, :, None] == of_row.sample[0]
        lists = [evenly_spaced(kind.nonzero()[:, 0].tolist(), PROBED) for kind in kinds[:, row, part]]
        order = dict.fromkeys(column for columns in zip_longest(*lists) for column in columns if column is not None)
        results.append(Excerpt(
            tokens=of_row, slots=torch.arange(here.start, here.stop), supervised=supervised[here],
            allowed=torch.where(strict[here, None], reach(graphs, of_row)[0], same_sample),
            chosen=[*order][: PROBED // len(found)],
        ))  # fmt: skip
    return results


def evenly_spaced(items: Sequence[int], count: int) -> list[int]:
    """Returns at most `count` of the items, evenly_spaced evenly."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def longest_sample(excerpt: Excerpt) -> Excerpt:
    """Returns the columns of the sample with the most columns in the excerpt, with as many chosen columns."""
    sample = excerpt.tokens.sample[0]
    longest = torch.bincount(sample)[1:].argmax() + 1
    part = excerpt.select((sample == longest).nonzero()[:, 0])
    return part.choosing(torch.ones(len(part.slots), dtype=torch.bool), len(excerpt.chosen))
