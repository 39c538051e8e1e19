"""Step-by-step reading of episodes. The keys and values of earlier steps are kept in a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...models.batch import Batch, SetPlan
from ...models.cache import Cache
from ...models.model import Model
from ...models.tokens import PADDING
from ...tokenizers.base import Chopper, axes_of, chopped
from ...tokenizers.chopping.packing import ordered_in_time, place

Sample = Sequence[tuple[str, Any]]
"""The items of one sample as (input name, item) pairs. An item is a result of `Chopper.decode`."""


@dataclass
class TimeSteps:
    """Several samples that a model reads step by step, one sample in each row of a batch. If the samples have different
    numbers of tokens in a step, the rows with fewer tokens are padded on the left."""

    model: Model
    choppers: Mapping[str, Chopper]
    dtype: torch.dtype = torch.float32
    """The dtype of the cache and of the computation of attention."""
    rows: list[int] = field(default_factory=list)
    """The number of the sample in each row, from 0."""
    _cache: Cache | None = None
    _token_counts: dict[str, Int[Tensor, "b"]] = field(default_factory=dict)
    """The number of tokens of each input in the cache, for each row. The key "" contains the number of tokens of all
    inputs."""

    @property
    def length(self) -> int:
        """The number of tokens of each row in the cache, including padding."""
        return self._cache.length if self._cache else 0

    def begin(self, samples: Sequence[Sample]) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """Empties the cache and reads the first steps of new samples. Returns the same pair as `read`."""
        self.rows, self._cache, self._token_counts = list(range(len(samples))), None, {}
        return self.read(samples, first=True)

    def read(self, samples: Sequence[Sample], first: bool = False) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """Reads the next items of the samples, one sample per row. Returns the output of the core for these items, with
        shape (rows, tokens, width), and the set of their tokens. Raises ValueError if the context is exceeded."""
        planned = self._continued(self._placed(samples, first))
        return self._read(planned), planned

    def _read(self, planned: SetPlan) -> Float[Tensor, "b n d"]:
        device = next(self.model.parameters()).device
        like = {"dtype": self.dtype, "device": device}
        core = self.model.core
        if self._cache is None:
            self._cache = core.empty_cache(planned.tokens.shape[0], self.model.context, **like)
        layouts = core.plan(planned.tokens, self._cache.extend(planned.tokens), self.dtype, device)
        main = replace(self.model.plan_inputs(planned, **like), layouts=layouts, groups=core.group(planned.tokens))
        batch = Batch(main=main) if device.type == "cpu" else Batch(main=main).to(device)
        return self.model.read(batch, self._cache).main

    def read_ids(self, name: str, ids: Int[Tensor, "b"], second: float) -> Float[Tensor, "b d"]:
        """Reads one more token in each row: the category `ids[row]` of the input `name` at the time `second`. Returns
        the output of the core at this token."""
        item = self.choppers[name].decode({"values": np.zeros(1, dtype=np.int64), "seconds": [second]})
        planned = _repeated(self._placed([[(name, item)]], first=False), name, ids.cpu())
        return self._read(self._continued(planned))[:, -1]

    def fork(self, rows: Sequence[int], extra: int) -> TimeSteps:
        """Returns an independent copy of the rows `rows`, with space for `extra` more tokens per row. A row may occur
        several times in `rows`."""
        device = next(self.model.parameters()).device
        cache = self._cache.fork(torch.tensor(list(rows), device=device), extra)
        counts = {name: count[list(rows)] for name, count in self._token_counts.items()}
        return replace(self, rows=[self.rows[row] for row in rows], _cache=cache, _token_counts=counts)

    def _placed(self, samples: Sequence[Sample], first: bool) -> SetPlan:
        """Returns the tokens of the samples as a set with one row per sample. `first`: the core's own tokens are placed
        in front of each row."""
        parts = [[(name, chopped(name, self.choppers[name], item)) for name, item in sample] for sample in samples]
        core_tokens, axes = self.model.own, axes_of(self.choppers.values())
        core = len(core_tokens.weight) if first and core_tokens is not None else 0
        planned = place(
            parts, self.choppers, self.model.context, axes, rows=range(len(parts)), core=core, trim=True, right=True
        )
        return ordered_in_time(planned, axes)

    def _continued(self, planned: SetPlan) -> SetPlan:
        """Returns the set with changed positions: the positions in the running order, and the indices within each
        input, continue those of the tokens in the cache."""
        tokens, (rows, n) = planned.tokens, planned.tokens.shape
        count = (tokens.sample != PADDING).sum(1)
        position = tokens.position.clone()
        position[..., 0] += (self._add_tokens("", count) - (n - count))[:, None]
        sample = torch.where(tokens.sample == PADDING, PADDING, torch.tensor(self.rows)[:, None] + 1)
        chunks = {}
        for name, chunk in planned.chunks.items():
            row = chunk.slots // n
            start = self._add_tokens(name, row.bincount(minlength=rows))[row]
            chunks[name] = replace(chunk, index=chunk.index + start)
        return replace(planned, tokens=replace(tokens, sample=sample, position=position), chunks=chunks)

    def _add_tokens(self, name: str, count: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """Adds the number of new tokens of an input to the counts. Returns the counts per row before this addition."""
        before = self._token_counts.get(name, torch.zeros_like(count))
        self._token_counts[name] = before + count
        return before

    def keep(self, rows: Sequence[int]) -> None:
        """Keeps only the rows `rows` of the cache, in this order."""
        self.rows = [self.rows[row] for row in rows]
        self._token_counts = {name: count[list(rows)] for name, count in self._token_counts.items()}
        device = next(self.model.parameters()).device
        self._cache.select(torch.tensor(list(rows), device=device))


def _repeated(planned: SetPlan, name: str, ids: Int[Tensor, "b"]) -> SetPlan:
    """Returns a set with one row of one token for each of the `ids`. The rows are copies of the single token of
    `planned` with another id."""
    n, chunks = len(ids), planned.chunks[name]
    sample = torch.arange(1, n + 1)[:, None]
    tokens = replace(
        planned.tokens, input=planned.tokens.input.expand(n, -1), sample=sample, item=sample,
        position=planned.tokens.position.expand(n, -1, -1),
    )  # fmt: skip
    chunks = replace(
        chunks, values=ids[:, None], index=chunks.index.expand(n), slots=torch.arange(n),
        coordinates=chunks.coordinates.expand(n, -1), counts=torch.ones(n, dtype=torch.long),
    )  # fmt: skip
    return replace(planned, tokens=tokens, chunks={name: chunks}, samples=n)
