"""Text: characters, bytes or byte-pair tokens become ids, and ids become vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from .base import Preprocessor, Role, readable
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import Encoding
from .encoding.byte_pairs import Extended
from .encoding.stored import load_encoding, make_encoding
from .media.summaries import span


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

        return TextChopper.of(make_encoding(self.encoding, self.vocabulary, texts, role.trust), role)

    def load(self, folder: Path, role: Role) -> TextChopper:
        return TextChopper.of(load_encoding(folder, role.trust), role)


@dataclass(frozen=True, kw_only=True)
class TextChopper(IdChopper):
    """Text to the ids of an encoding. The text "no", generated as characters with the start token `<s>`, which also
    ends a text; and only read, in an encoding that frames texts as BERT's does:

        generated     values  <s>    n  o            next_ids  n  o  <s>
        only read     values  [CLS]  n  o  [SEP]
    """

    kind: ClassVar[str] = "text"
    vocabulary: Encoding = field()  # without `field()` the None of the base class would be its default
    marks: Mapping[str, int] = field(default_factory=dict)
    """Texts that are read as special ids, such as a mask to fill in. Empty for data, where everything is text."""
    words: bool = True
    """Whether a mark stands for a word, with the space before it: a sentinel, or a mask where ids are pieces of words;
    else for a character."""

    @classmethod
    def of(cls, encoding: Encoding, role: Role) -> TextChopper:
        """The chopper for a role, its encoding extended by the special ids that it lacks."""
        lacking = [name for name in role.special_ids if name not in encoding.roles]
        return cls(vocabulary=Extended(encoding, lacking) if lacking else encoding, generated=role.generated)

    def save(self, folder: Path) -> None:
        self.vocabulary.save(folder)

    def decode(self, raw: Any) -> str:
        return as_text(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        texts = list(readable(raws, self.decode, "text", "in the samples"))
        characters = span(map(len, texts), "character(s)")
        return f"{characters}, {super().summary(raws)} of {self.vocabulary.size:,} ids ({self.vocabulary.name})"

    def encoded(self, item: str | Sequence[int]) -> list[int]:
        """The ids of a text, or the ids themselves; every mark in a text becomes its special id, one that stands for a
        word together with a space before it."""
        if not self.marks or not isinstance(item, str):
            return super().encoded(item)
        ids: list[int] = []
        space = "[ ]?" if self.words else ""
        for number, part in enumerate(re.split(space + "(" + "|".join(map(re.escape, self.marks)) + ")", item)):
            ids += [self.marks[part]] if number % 2 else self.vocabulary.encode(part) if part else []
        return ids

    def with_marks(self, names: Iterable[str]) -> TextChopper:
        """The chopper that reads the printed names (`<|mask|>`, `[MASK]`) of the special ids of these roles as the
        ids."""
        ids = {name: self.vocabulary.roles[name] for name in names}
        words = {*ids} != {"mask"} or any(piece and len(piece) > 1 for piece in self.vocabulary.pieces)
        return replace(self, marks={self.vocabulary.specials[id]: id for id in ids.values()}, words=words)


def as_text(raw: Any) -> str:
    """The text of a string, UTF-8 bytes or a number. Raises ValueError for anything else."""
    if isinstance(raw, bytes):
        return raw.decode()
    if isinstance(raw, str | int | float):
        return str(raw)
    raise ValueError(f"a text is expected, not {type(raw).__name__}")


class TextTokenizer(IdTokenizer):
    """Ids of text to vectors."""

    Chopper = TextPreprocessor
