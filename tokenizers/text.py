"""Text: characters, bytes or byte-pair tokens become ids, and ids become vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, state
from .encoding.base import Encoding
from .encoding.byte_pairs import Extended
from .encoding.stored import load_encoding, make_encoding


@dataclass(frozen=True, kw_only=True)
class TextChopper(Chopper):
    """Text to ids. `encoding`: `characters`, `bytes`, `bpe` (trained on the corpus to `vocabulary` ids, the start token
    included) or a tiktoken encoding by name, such as `gpt2`."""

    kind: ClassVar[str] = "text"
    encoding: str = "gpt2"
    vocabulary: int | None = None
    fitted: Encoding | None = state(default=None)
    written: bool = state(default=True)
    """Whether a task writes the text; else it is only read, and framed as the encoding frames what is read."""
    marks: Mapping[str, int] = state(default_factory=dict)
    """Texts that stand for special ids (a mask to fill in). In data there are none: there everything is text."""
    closing: tuple[int, ...] = state(default=())
    """Ids behind what is only read, besides the encoding's own frame."""

    def fit(self, items: Callable[[], Iterable[str]]) -> TextChopper:
        return replace(self, fitted=make_encoding(self.encoding, self.vocabulary, partial(self.readable, items)))

    def readable(self, items: Callable[[], Iterable[Any]]) -> Iterator[str]:
        """The texts among the values; what is none counts as bad when its turn comes."""
        for raw in items():
            with suppress(ValueError):
                yield self.decode(raw)

    def with_role(self, *, written: bool, own: Sequence[str]) -> TextChopper:
        """The chopper of a text that is `written` or not, with special ids of these names where the encoding lacks them."""
        lacking = [name for name in own if name not in self.text.roles]
        return replace(self, written=written, fitted=Extended(self.text, lacking) if lacking else self.text)

    def save(self, folder: Path) -> None:
        self.text.save(folder)

    def load(self, folder: Path) -> TextChopper:
        return replace(self, fitted=load_encoding(folder))

    @property
    def text(self) -> Encoding:
        """The encoding in use. Raises ValueError before `fit` or `load`."""
        if self.fitted is None:
            raise ValueError(f"the text encoding {self.encoding!r} has not been fitted or loaded")
        return self.fitted

    def decode(self, raw: Any) -> str:
        """Text, or its UTF-8 bytes; numbers as they are written."""
        if isinstance(raw, bytes):
            return raw.decode()
        if isinstance(raw, str | int | float):
            return str(raw)
        raise ValueError(f"a text is expected, not {type(raw).__name__}")

    def chop(self, item: str | Sequence[int]) -> Chunk:
        """One document: its start token, then its ids (ids are taken as they are), and what follows each: after the last the
        token that ends a text. A text that is only read stands between the tokens that its encoding puts around it."""
        text = self.text
        ids = self.encoded(item) if isinstance(item, str) else list(item)
        ids = [text.start, *text.opening, *ids] if self.written else [*text.before, *ids, *text.after, *self.closing]
        return Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], text.end]))

    def encoded(self, item: str) -> list[int]:
        """The ids of a text, in which marks are special ids. A mark takes in the space before it, as tokens of words do."""
        if not self.marks:
            return self.text.encode(item)
        ids: list[int] = []
        for number, part in enumerate(re.split("[ ]?(" + "|".join(map(re.escape, self.marks)) + ")", item)):
            ids += [self.marks[part]] if number % 2 else self.text.encode(part) if part else []
        return ids

    def with_marks(self, names: Iterable[str]) -> TextChopper:
        """The chopper that takes the printed names of these special ids (`<|mask|>`, `[MASK]`) for the ids."""
        return replace(self, marks={self.text.specials[self.text.roles[name]]: self.text.roles[name] for name in names})


class TextTokenizer(nn.Module):
    """Ids to vectors: a table of learned embeddings, plus an absolute position where `position` is not null.

    `pad_vocabulary_to` rounds the number of rows up (64 makes a GPU's matrix products faster); the extra rows are never
    targets and never sampled. `scaled` multiplies the embeddings with the root of the width before the position is added, as
    in the 2017 paper. `norm` normalises each token's vector before it joins the set.
    """

    Chopper = TextChopper

    def __init__(
        self, chopper: TextChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned, norm: Callable[[int], Norm] | None = None,
        pad_vocabulary_to: int = 1, scaled: bool = False,
    ):  # fmt: skip
        super().__init__()
        if not 1 <= pad_vocabulary_to <= 2**20:
            raise ValueError(f"pad_vocabulary_to must lie between 1 and {2**20:,}, not {pad_vocabulary_to}")
        self.scale = width**0.5 if scaled else 1.0
        self.vocabulary = chopper.text.vocabulary
        rows = -(-self.vocabulary // pad_vocabulary_to) * pad_vocabulary_to
        self.embedding = nn.Embedding(rows, width)
        self.position = position(width, context) if position else None
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, chunks: Chunks) -> Float[Tensor, "*t d"]:
        """Ids (b, n) or (t,) to vectors of the same leading shape."""
        tokens = self.embedding(chunks.values)
        if self.scale != 1:
            tokens = tokens * self.scale
        if self.position is not None:
            tokens = tokens + self.position(chunks.index)
        return self.norm(tokens)
