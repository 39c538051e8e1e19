"""The parameter-free half of every tokenizer: how one raw item is chopped into tokens.

A tokenizer is one file with two halves. The *chopper* (here) is a frozen dataclass: its fields are the keys of the YAML,
it can be pickled to loader workers, and it can tell how many tokens an item becomes before anything is chopped. The
*embedder* is an `nn.Module` that turns chopped pieces into vectors of the model's width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """One chopped item: one row of values per token, and where each stands on the tokenizer's own axes."""

    values: Tensor
    coordinates: Float[Tensor, "t a"] | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True)
class Chopper:
    """Base of all choppers."""

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the position axes that its tokens have besides the running order."""

    def fit(self, items: Callable[[], Iterable]) -> Chopper:
        """The chopper after it has looked at the training data (a vocabulary, a mean and a scale); most need not."""
        return self

    def save(self, folder: Path) -> None:
        """Keep what `fit` found in `RUN/assets/<input>/`, so that a run works without its data."""

    def load(self, folder: Path) -> Chopper:
        """The chopper with what `save` kept."""
        return self

    def count(self, item) -> int:
        """How many tokens the item will become, without chopping it."""
        return len(self.chop(item))

    def chop(self, item) -> Piece:
        """Cut one raw item into tokens."""
        raise NotImplementedError

    def collate(self, pieces: Sequence[Piece]) -> Tensor:
        """The values of several chopped items as one tensor, in order: what the embedder takes."""
        return torch.cat([piece.values for piece in pieces])
