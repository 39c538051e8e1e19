"""Text: characters, bytes or byte-pair tokens become ids, and ids become vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, Preprocessor, Role
from .encoding.base import Encoding
from .encoding.byte_pairs import Extended
from .encoding.stored import load_encoding, make_encoding


@dataclass(frozen=True, kw_only=True)
class TextPreprocessor(Preprocessor):
    """Text to ids. `encoding`: `characters`, `bytes`, `bpe` (trained on the corpus to `vocabulary` ids, the start token
    included), `numbers` (text such as `<12><7>` is the ids, of `vocabulary` in all) or a tiktoken encoding by name,
    such as `gpt2`."""

    kind: ClassVar[str] = "text"
    encoding: str = "gpt2"
    vocabulary: int | None = None

    def fit(self, items: Callable[[], Iterable[Any]], role: Role) -> TextChopper:
        """The chopper of the encoding, which is made of the training texts where it is `characters` or `bpe`."""

        def texts() -> Iterator[str]:
            for raw in items():
                with suppress(ValueError):  # what is no text is reported as a bad sample when it is read
                    yield as_text(raw)

        return TextChopper.of(make_encoding(self.encoding, self.vocabulary, texts), role)

    def load(self, folder: Path, role: Role) -> TextChopper:
        return TextChopper.of(load_encoding(folder), role)


@dataclass(frozen=True, kw_only=True)
class TextChopper(Chopper):
    """Text to the ids of an encoding. The text "no", generated as characters with the start token `<s>`, which also
    ends a text; and only read, in an encoding that frames texts as BERT's does:

        generated     values  <s>    n  o            next_ids  n  o  <s>
        only read     values  [CLS]  n  o  [SEP]
    """

    kind: ClassVar[str] = "text"
    text: Encoding = field()  # without `field()` the None of the base class would be its default
    generated: bool = True
    """Whether a task generates the text; else it is only read, between the encoding's `before` and `after`."""
    marks: Mapping[str, int] = field(default_factory=dict)
    """Texts that are read as special ids, such as a mask to fill in. Empty for data, where everything is text."""
    closing: tuple[int, ...] = ()
    """Ids put behind a text that is only read, after the encoding's `after`."""

    @classmethod
    def of(cls, encoding: Encoding, role: Role) -> TextChopper:
        """The chopper for a role, its encoding extended by the special ids that it lacks."""
        lacking = [name for name in role.special_ids if name not in encoding.roles]
        return cls(text=Extended(encoding, lacking) if lacking else encoding, generated=role.generated)

    def save(self, folder: Path) -> None:
        self.text.save(folder)

    def decode(self, raw: Any) -> str:
        return as_text(raw)

    def chop(self, item: str | Sequence[int]) -> Chunk:
        """The ids of one document, framed as the class shows, with the id that follows each; after the last one the id
        that ends a text. An item of ids is not encoded. Raises ValueError for text that the encoding cannot hold."""
        text = self.text
        ids = self.encoded(item) if isinstance(item, str) else list(item)
        ids = [text.start, *text.opening, *ids] if self.generated else [*text.before, *ids, *text.after, *self.closing]
        return Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], text.end]))

    def encoded(self, item: str) -> list[int]:
        """The ids of a text; every mark in it becomes its special id, together with a space before it, as in tokens of
        words."""
        if not self.marks:
            return self.text.encode(item)
        ids: list[int] = []
        for number, part in enumerate(re.split("[ ]?(" + "|".join(map(re.escape, self.marks)) + ")", item)):
            ids += [self.marks[part]] if number % 2 else self.text.encode(part) if part else []
        return ids

    def with_marks(self, names: Iterable[str]) -> TextChopper:
        """The chopper that reads the printed names (`<|mask|>`, `[MASK]`) of the special ids of these roles as the
        ids."""
        return replace(self, marks={self.text.specials[self.text.roles[name]]: self.text.roles[name] for name in names})


def as_text(raw: Any) -> str:
    """The text of a string, UTF-8 bytes or a number. Raises ValueError for anything else."""
    if isinstance(raw, bytes):
        return raw.decode()
    if isinstance(raw, str | int | float):
        return str(raw)
    raise ValueError(f"a text is expected, not {type(raw).__name__}")


class TextTokenizer(nn.Module):
    """Ids to vectors: a table of learned embeddings, plus an absolute position where `position` is not null.

    `pad_vocabulary_to` rounds the number of rows up to a multiple (64 makes a GPU's matrix products faster); the extra
    rows are never targets and never sampled. `scaled` multiplies the embeddings by the root of the width before the
    position is added, as in Vaswani et al. 2017. `norm` normalises each token's vector before it joins the set.
    """

    Chopper = TextPreprocessor

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
        return self.norm(tokens if self.position is None else tokens + self.position(chunks.index))
