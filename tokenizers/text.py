"""Text as tokens: characters, bytes or byte-pair tokens become ids, and ids become vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from .base import Example, Preprocessor, Role, readable
from .chopping.ids import IdChopper, IdTokenizer
from .encoding.base import Encoding
from .encoding.byte_pairs import Extended, known_name
from .encoding.stored import load_encoding, make_encoding
from .media.summaries import span

SIZED = ("bpe", "numbers")
"""The encodings whose number of ids the YAML sets."""


def vocabulary_problem(encoding: str, vocabulary: int | None) -> tuple[tuple[str, ...], str]:
    """Returns the problem of a `vocabulary` that is missing, too small, or not allowed."""
    if vocabulary is None:
        return ("encoding",), f"{encoding} needs 'vocabulary', the number of ids, such as 4096"
    if encoding == "bpe":
        return ("vocabulary",), f"must be at least 257 (256 bytes and the start token), not {vocabulary}"
    reason = f"{encoding!r} has a fixed vocabulary: remove {vocabulary}"
    return ("vocabulary",), f"is for encodings bpe and numbers only; {reason}"


@dataclass(frozen=True, kw_only=True)
class TextPreprocessor(Preprocessor):
    """Converts text to ids. `encoding` is one of: `characters`; `bytes`; `bpe`, trained on the training texts;
    `numbers`, for text that consists of ids, such as `<12><7>`; or the name of a tiktoken encoding, such as `gpt2`.
    `vocabulary` is the number of ids including the start token. It is required for `bpe` and `numbers` and not allowed
    otherwise."""

    kind: ClassVar[str] = "text"
    encoding: str = "gpt2"
    vocabulary: int | None = None

    @classmethod
    def problems(cls, options):
        encoding, vocabulary = options["encoding"], options["vocabulary"]
        try:
            known_name(encoding)
        except ValueError as error:
            yield ("encoding",), str(error)
            return
        if (encoding in SIZED) != (vocabulary is not None) or (encoding == "bpe" and vocabulary < 257):
            yield vocabulary_problem(encoding, vocabulary)

    def fit(self, items: Callable[[], Iterable[Any]], role: Role) -> TextChopper:
        """Returns the chopper with its encoding. The encodings `characters` and `bpe` are computed from the training
        texts."""

        def texts() -> Iterator[str]:
            for raw in items():
                with suppress(ValueError):  # values that are not text are reported as bad samples when they are read
                    yield as_text(raw)

        return TextChopper.of(make_encoding(self.encoding, self.vocabulary, texts, role.trust), role)

    def load(self, folder: Path, role: Role) -> TextChopper:
        return TextChopper.of(load_encoding(folder, role.trust), role)


@dataclass(frozen=True, kw_only=True)
class TextChopper(IdChopper):
    """Converts text to the ids of an encoding. The first row is the text "no" that a task generates, as characters, in
    an encoding where `<s>` starts and ends a text. The second row is the text "no" that is only an input, in an
    encoding with BERT's special ids:

        generated     values  <s>    n  o            next_ids  n  o  <s>
        input only    values  [CLS]  n  o  [SEP]
    """

    kind: ClassVar[str] = "text"
    vocabulary: Encoding = field()  # without `field()` the None of the base class would be its default
    marks: Mapping[str, int] = field(default_factory=dict)
    """Maps texts ("marks", such as `[MASK]`) to the special ids that they represent, for prompts of a user. Empty for
    data: in data such a text is ordinary text."""
    words: bool = True
    """True: a mark replaces a word and the space before it. False: a mark replaces one character. See `with_marks`."""

    @classmethod
    def of(cls, encoding: Encoding, role: Role) -> TextChopper:
        """Returns the chopper for a role. Special ids of the role that the encoding lacks are added (`Extended`)."""
        missing = [name for name in role.special_ids if name not in encoding.roles]
        return cls(vocabulary=Extended(encoding, missing) if missing else encoding, generated=role.generated)

    def save(self, folder: Path) -> None:
        self.vocabulary.save(folder)

    def decode(self, raw: Any) -> str:
        return as_text(raw)

    def summary(self, raws: Sequence[Any]) -> str:
        texts = list(readable(raws, self.decode, "text", "in the samples"))
        characters = span(map(len, texts), "character(s)")
        return f"{characters}, {super().summary(raws)} of {self.vocabulary.size:,} ids ({self.vocabulary.name})"

    def simple_features(self, item: str | Sequence[int]) -> str:
        return item if isinstance(item, str) else self.vocabulary.restore(item)

    def encoded(self, item: str | Sequence[int]) -> list[int]:
        """Returns the ids of a text. Every mark becomes its special id. With `words` a space before a mark is dropped.
        A sequence of ids is returned unchanged, as a list."""
        if not self.marks or not isinstance(item, str):
            return super().encoded(item)
        return self._with_marks(item)

    def _with_marks(self, item: str) -> list[int]:
        ids: list[int] = []
        space = "[ ]?" if self.words else ""
        for number, part in enumerate(re.split(space + "(" + "|".join(map(re.escape, self.marks)) + ")", item)):
            ids += [self.marks[part]] if number % 2 else self.vocabulary.encode(part) if part else []
        return ids

    def with_marks(self, names: Iterable[str]) -> TextChopper:
        """Returns a copy of the chopper that converts marks to special ids. The marks are the printed names
        (`<|mask|>`, `[MASK]`) of the special ids with the roles `names`. Marks replace words, except if `names` is only
        `mask` and no id has more than one byte."""
        ids = {name: self.vocabulary.roles[name] for name in names}
        words = {*ids} != {"mask"} or any(piece and len(piece) > 1 for piece in self.vocabulary.pieces)
        return replace(self, marks={self.vocabulary.specials[id]: id for id in ids.values()}, words=words)


def as_text(raw: Any) -> str:
    """Returns a string, UTF-8 bytes or a number as text. Raises ValueError for other types, and for bytes that are not
    UTF-8."""
    if isinstance(raw, bytes):
        return raw.decode()
    if isinstance(raw, str | int | float):
        return str(raw)
    raise ValueError(f"a text must be a string, bytes or a number, not {type(raw).__name__}")


class TextTokenizer(IdTokenizer):
    """Maps ids of text to vectors."""

    Chopper = TextPreprocessor


EXAMPLE = Example(
    options={"encoding": "bytes"},
    items=lambda: ["abcdefghij", "zyxwvutsrq"],
    generated=True,
)
