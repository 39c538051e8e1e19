"""Base classes of the tokenizers whose tokens are ids: the chopper adds special ids, the embedder is a table."""

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
    """Converts items to the ids of a vocabulary, one token per id. Example: an item with the ids 7 and 3 in a
    vocabulary where the id 16 starts and ends an item (and in which `before` is (16,) and `after` is empty):

        generated     values  16  7  3     next_ids  7  3  16     start, then the item
        input only    values  16  7  3     next_ids  7  3  16     before, the item, after; no task uses next_ids
    """

    vocabulary: Vocabulary = field()  # without `field()` the None of the base class would be its default
    generated: bool = True
    """Whether a task generates the items. If False, the items are only an input."""
    notes: ClassVar[Notes | None] = None
    """The ids that open and close notes (`use: noted_text`); None if items cannot contain notes."""
    closing: tuple[int, ...] = ()
    """Ids that are appended, after the vocabulary's `after`, to an item that is only an input."""

    def encoded(self, item: Any) -> list[int]:
        """Returns the ids of an item without special ids. If the item is already a sequence of ids, returns it as a
        list."""
        return list(item) if isinstance(item, tuple | list) else self.vocabulary.encode(item)

    def with_marks(self, names: Iterable[str]) -> IdChopper:
        """Returns a chopper that converts marks (texts such as `[MASK]`) to the special ids with the roles `names`.
        Only `TextChopper` does this; the base class returns itself."""
        return self

    def chop(self, item: Any) -> Chunk:
        """Returns the ids of one item with special ids (see the example of the class). `next_ids` holds the id after
        each token; the last token is followed by the end id. Raises ValueError if the vocabulary cannot encode the
        item."""
        vocabulary, ids = self.vocabulary, self.encoded(item)
        if self.generated:
            ids = [vocabulary.start, *vocabulary.opening, *ids]
        else:
            ids = [*vocabulary.before, *ids, *vocabulary.after, *self.closing]
        return Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], vocabulary.end]))


class IdTokenizer(nn.Module):
    """Maps ids to vectors: a learned embedding table, plus an absolute position. `position`: the absolute position that
    is added to the vector of each token; null: none.

    `pad_vocabulary_to` rounds the number of rows of the table up to a multiple of this number (64 makes matrix products
    on a GPU faster). The additional rows are never targets and never sampled. `scaled` multiplies the embeddings by the
    square root of the width before the position is added (Vaswani et al. 2017). `norm` normalises the vector of each
    token.
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
        """The maximum number of tokens per item for which the position embedding has entries; None: unlimited."""
        return None if self.position is None else self.position.length

    @property
    def period(self) -> int:
        """If a generated text exceeds the context, tokens near its start are removed, in a multiple of this number."""
        return 1 if self.position is None else self.position.period

    def forward(self, chunks: Chunks) -> Float[Tensor, "*t d"]:
        """Maps ids (b, n) or (t,) to vectors (b, n, d) or (t, d)."""
        tokens = self.embedding(chunks.values)
        if self.scale != 1:
            tokens = tokens * self.scale
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))
