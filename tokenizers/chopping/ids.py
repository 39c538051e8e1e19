"""Items that are ids: how they are framed for generation or for reading, and the table that makes vectors of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...models.batch import Chunks
from ...models.generation.notes import Notes
from ...models.layers.norms import Norm
from ...models.layers.positions import AbsolutePosition, Learned
from ..base import Chopper, Chunk
from ..encoding.base import Vocabulary


@dataclass(frozen=True, kw_only=True)
class IdChopper(Chopper):
    """Items to the ids of a vocabulary, one token each. Of an item with the ids 7 and 3, where 16 starts and ends one:

    generated     values  16  7   3     next_ids  7  3  16
    only read     values  16  7   3     in the frame of the vocabulary's `before` and `after`
    """

    vocabulary: Vocabulary = field()  # without `field()` the None of the base class would be its default
    generated: bool = True
    """Whether a task generates the items; else they are only read, between the vocabulary's `before` and `after`."""
    notes: ClassVar[Notes | None] = None
    """The marks of notes, where the items may hold some."""
    closing: tuple[int, ...] = ()
    """Ids put behind an item that is only read, after the vocabulary's `after`."""

    def encoded(self, item: Any) -> list[int]:
        """The ids of an item, without special ones; ids themselves stay as they are."""
        return list(item) if isinstance(item, tuple | list) else self.vocabulary.encode(item)

    def with_marks(self, names: Iterable[str]) -> IdChopper:
        """The chopper that reads marks in an item as the special ids of these roles; only texts have such marks."""
        return self

    def chop(self, item: Any) -> Chunk:
        """The ids of one item, framed as the class shows, with the id that follows each; after the last one the id that
        ends an item. Raises ValueError for an item that the vocabulary cannot hold."""
        known, ids = self.vocabulary, self.encoded(item)
        ids = [known.start, *known.opening, *ids] if self.generated else [*known.before, *ids, *known.after]
        ids += [] if self.generated else self.closing
        return Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], known.end]))


class IdTokenizer(nn.Module):
    """Ids to vectors: a table of learned embeddings, plus an absolute position where `position` is not null.

    `pad_vocabulary_to` rounds the number of rows up to a multiple (64 makes a GPU's matrix products faster); the extra
    rows are never targets and never sampled. `scaled` multiplies the embeddings by the root of the width before the
    position is added, as in Vaswani et al. 2017. `norm` normalises each token's vector before it joins the set.
    """

    def __init__(
        self, chopper: IdChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned, norm: Callable[[int], Norm] | None = None,
        pad_vocabulary_to: int = 1, scaled: bool = False,
    ):  # fmt: skip
        super().__init__()
        if not 1 <= pad_vocabulary_to <= 2**20:
            raise ValueError(f"pad_vocabulary_to must lie between 1 and {2**20:,}, not {pad_vocabulary_to}")
        self.scale = width**0.5 if scaled else 1.0
        self.vocabulary, self.notes = chopper.vocabulary.size, chopper.notes
        rows = -(-self.vocabulary // pad_vocabulary_to) * pad_vocabulary_to
        self.embedding = nn.Embedding(rows, width)
        self.position = position(width, context) if position else None
        self.norm = norm(width) if norm else nn.Identity()

    @property
    def longest(self) -> int | None:
        """The most tokens of an item that there are positions for; None: any number."""
        return None if self.position is None else self.position.length

    @property
    def period(self) -> int:
        """By multiples of how many tokens a generated text that outgrows the context is cut."""
        return 1 if self.position is None else self.position.period

    def forward(self, chunks: Chunks) -> Float[Tensor, "*t d"]:
        """Ids (b, n) or (t,) to vectors of the same leading shape."""
        tokens = self.embedding(chunks.values)
        if self.scale != 1:
            tokens = tokens * self.scale
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))
