"""Reading in time: what happens is read moment by moment, and keys and values of what was read are kept."""

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
from ...tokenizers.chopping.packing import place

Sample = Sequence[tuple[str, Any]]
"""What one sample reads of a moment: (input name, item) pairs, items as `Chopper.decode` gives them."""


@dataclass
class TimeSteps:
    """Several samples that a model reads in time, a row each, side by side. Where they read unequally many tokens of a
    moment, padding is in front of them."""

    model: Model
    choppers: Mapping[str, Chopper]
    dtype: torch.dtype = torch.float32
    """That of the cache: in which attention is computed."""
    rows: list[int] = field(default_factory=list)
    """The number of the sample in each row, from 0."""
    _cache: Cache | None = None
    _read_already: dict[str, Int[Tensor, "b"]] = field(default_factory=dict)
    """How many tokens of each input were read in each row; of all inputs under the name ``."""

    @property
    def length(self) -> int:
        """How many tokens of each row were read, padding included."""
        return self._cache.length if self._cache else 0

    def begin(self, samples: Sequence[Sample]) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """Forget all, and read the first moment (or several) of so many samples."""
        self.rows, self._cache, self._read_already = list(range(len(samples))), None, {}
        return self.read(samples, first=True)

    def read(self, samples: Sequence[Sample], first: bool = False) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """What the samples, one for each row, read next: the core's output, and the set as it was read. Raises
        ValueError where it exceeds the context."""
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
        """What the core makes of one more token in each row: of the input `name`, a category of this number."""
        item = self.choppers[name].decode({"values": np.zeros(1, dtype=np.int64), "seconds": [second]})
        one = _repeated(self._placed([[(name, item)]], first=False), name, ids.cpu())
        return self._read(self._continued(one))[:, -1]

    def fork(self, rows: Sequence[int], room: int) -> TimeSteps:
        """The same, read on by itself: these rows, each of which may be there several times, and `room` more tokens."""
        device = next(self.model.parameters()).device
        cache = self._cache.fork(torch.tensor(list(rows), device=device), room)
        already = {name: count[list(rows)] for name, count in self._read_already.items()}
        return replace(self, rows=[self.rows[row] for row in rows], _cache=cache, _read_already=already)

    def _placed(self, samples: Sequence[Sample], first: bool) -> SetPlan:
        """The tokens as a set of a row for each sample."""
        parts = [[(name, chopped(name, self.choppers[name], item)) for name, item in sample] for sample in samples]
        own = self.model.own
        return place(
            parts, self.choppers, self.model.context, axes_of(self.choppers.values()), rows=range(len(parts)),
            core=len(own.weight) if first and own is not None else 0, trim=True, right=True, in_time=True,
        )  # fmt: skip

    def _continued(self, planned: SetPlan) -> SetPlan:
        """A set of a row for each sample, whose running order, and whose tokens' places in their streams, go on from
        what was read of this row before."""
        tokens, (rows, n) = planned.tokens, planned.tokens.shape
        count = (tokens.sample != PADDING).sum(1)
        position = tokens.position.clone()
        position[..., 0] += (self._counted("", count) - (n - count))[:, None]
        sample = torch.where(tokens.sample == PADDING, PADDING, torch.tensor(self.rows)[:, None] + 1)
        chunks = {}
        for name, each in planned.chunks.items():
            row = each.slots // n
            chunks[name] = replace(each, index=each.index + self._counted(name, row.bincount(minlength=rows))[row])
        return replace(planned, tokens=replace(tokens, sample=sample, position=position), chunks=chunks)

    def _counted(self, name: str, more: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """How many tokens of an input were read in each row before these."""
        before = self._read_already.get(name, torch.zeros_like(more))
        self._read_already[name] = before + more
        return before

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and forget the others."""
        self.rows = [self.rows[row] for row in rows]
        self._read_already = {name: count[list(rows)] for name, count in self._read_already.items()}
        device = next(self.model.parameters()).device
        self._cache.select(torch.tensor(list(rows), device=device))


def _repeated(one: SetPlan, name: str, ids: Int[Tensor, "b"]) -> SetPlan:
    """A set of one row and one token as that of many rows, which differ in their ids."""
    n, chunks = len(ids), one.chunks[name]
    sample = torch.arange(1, n + 1)[:, None]
    tokens = replace(
        one.tokens, input=one.tokens.input.expand(n, -1), sample=sample, item=sample,
        position=one.tokens.position.expand(n, -1, -1),
    )  # fmt: skip
    chunks = replace(
        chunks, values=ids[:, None], index=chunks.index.expand(n), slots=torch.arange(n),
        coordinates=chunks.coordinates.expand(n, -1), counts=torch.ones(n, dtype=torch.long),
    )  # fmt: skip
    return replace(one, tokens=tokens, chunks={name: chunks}, samples=n)
