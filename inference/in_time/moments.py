"""Reading in time: what happens is read moment by moment, and keys and values of what was read are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...models.batch import Batch, SetPlan
from ...models.cache import Cache
from ...models.model import Model
from ...models.tokens import PADDING
from ...tokenizers.base import Chopper, axes_of
from ...tokenizers.chopping.contract import chopped
from ...tokenizers.chopping.packing import place

Sample = Sequence[tuple[str, Any]]
"""What one sample reads of a moment: (input name, item) pairs, items as `Chopper.decode` gives them."""


@dataclass
class Moments:
    """Several samples that a model reads in time, a row each, side by side: at every moment all read equally many
    tokens, but for the first, whose padding is in front."""

    model: Model
    choppers: Mapping[str, Chopper]
    dtype: torch.dtype = torch.float32
    """That of the cache: in which attention is computed."""
    rows: list[int] = field(default_factory=list)
    """The number of the sample in each row, from 0."""
    _cache: Cache | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """How many tokens of each row were read, padding included."""
        return self._cache.length if self._cache else 0

    def begin(self, samples: Sequence[Sample]) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """Forget all, and read the first moment (or several) of so many samples."""
        self.rows, self._cache, self._counts = list(range(len(samples))), None, {}
        return self.read(samples, first=True)

    def read(self, samples: Sequence[Sample], first: bool = False) -> tuple[Float[Tensor, "b n d"], SetPlan]:
        """What the samples, one for each row, read next: the core's output, and the set as it was read. Raises
        ValueError where it exceeds the context."""
        planned = self._placed(samples, first)
        device = next(self.model.parameters()).device
        like = {"dtype": self.dtype, "device": device}
        core = self.model.core
        if self._cache is None:
            self._cache = core.empty_cache(len(samples), self.model.context, **like)
        layouts = core.plan(planned.tokens, self._cache.extend(planned.tokens), self.dtype, device)
        main = replace(self.model.plan_inputs(planned, **like), layouts=layouts)
        batch = Batch(main=main) if device.type == "cpu" else Batch(main=main).to(device)
        return self.model.read(batch, self._cache).main, planned

    def _placed(self, samples: Sequence[Sample], first: bool) -> SetPlan:
        """The tokens as a set whose running order, and whose tokens' places in their streams, go on from before."""
        parts = [[(name, chopped(name, self.choppers[name], item)) for name, item in sample] for sample in samples]
        own = self.model.own
        planned = place(
            parts, self.choppers, self.model.context, axes_of(self.choppers.values()), rows=range(len(parts)),
            core=len(own.weight) if first and own is not None else 0, trim=True, right=True, in_time=True,
        )  # fmt: skip
        numbers = torch.tensor([PADDING, *(number + 1 for number in self.rows)])
        position = planned.tokens.position.clone()
        position[..., 0] += self.length
        tokens = replace(planned.tokens, sample=numbers[planned.tokens.sample], position=position)
        chunks = {}
        for name, each in planned.chunks.items():
            chunks[name] = replace(each, index=each.index + self._counts.get(name, 0))
            self._counts[name] = self._counts.get(name, 0) + int(each.counts[0])
        return replace(planned, tokens=tokens, chunks=chunks)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and forget the others."""
        self.rows = [self.rows[row] for row in rows]
        device = next(self.model.parameters()).device
        self._cache.select(torch.tensor(list(rows), device=device))
