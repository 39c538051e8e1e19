"""Text with notes: what stands between two marks is on the axis `note`, so that an attention graph can name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ..models.generation.notes import AXIS, Notes
from .base import Chunk, Role
from .chopping.ids import IdTokenizer
from .encoding.base import Encoding
from .text import TextChopper, TextPreprocessor


@dataclass(frozen=True, kw_only=True)
class NotedTextPreprocessor(TextPreprocessor):
    """Text to ids as `use: text` does, where what stands between the two marks of `notes`, such as `["[", "]"]`, is a
    note. Each mark is one id of the encoding (of `characters`, one character). Raises ValueError where it is not."""

    axes: ClassVar[tuple[str, ...]] = (AXIS,)
    notes: list[str] = field(default_factory=lambda: ["[", "]"])

    def __post_init__(self):
        if len(self.notes) != 2 or len({*self.notes}) != 2 or not all(self.notes):
            raise ValueError(
                f"notes must be two different marks, one that opens a note and one that closes it, not {self.notes}"
            )

    def fit(self, items: Callable[[], Iterable[Any]], role: Role) -> NotedTextChopper:
        return self.noted(super().fit(items, role))

    def load(self, folder: Path, role: Role) -> NotedTextChopper:
        return self.noted(super().load(folder, role))

    def noted(self, text: TextChopper) -> NotedTextChopper:
        """The chopper with notes of one without."""
        ids = [_mark(text.vocabulary, mark) for mark in self.notes]
        return NotedTextChopper(vocabulary=text.vocabulary, generated=text.generated, notes=Notes(*ids),
                                written=tuple(self.notes))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NotedTextChopper(TextChopper):
    """Text to ids with the number of the note that each is in. The text "no[b]", generated as characters:

    values       <s>  n    o    [  b  ]
    coordinates  nan  nan  nan  0  0  0      (6, 1)
    """

    axes: ClassVar[tuple[str, ...]] = (AXIS,)
    notes: Notes = field()  # without `field()` the None of the base class would be its default
    written: tuple[str, str]
    """The two marks as texts."""

    def encoded(self, item: str | Sequence[int]) -> list[int]:
        """The ids of a text, each mark of a note one id, whatever stands beside it. Raises ValueError for a text that
        opens a note and does not close it, or closes one that is not open; ids themselves may."""
        if not isinstance(item, str):
            return super().encoded(item)
        opened, ids = 0, []
        opens, closes = self.written
        ids_of = {opens: [self.notes.open], closes: [self.notes.close]}
        for part in re.split("(" + "|".join(map(re.escape, self.written)) + ")", item):
            place = len(ids) + 1
            if part == opens and opened:
                raise ValueError(f"{part!r} stands at its token {place}, inside the note that begins at token {opened}")
            if part == closes and not opened:
                raise ValueError(f"{part!r} stands at its token {place}, where no note is open")
            if part in ids_of:
                opened = place if part == opens else 0
            ids += ids_of.get(part) or super().encoded(part)
        if opened:
            raise ValueError(f"the note that begins at its token {opened} is not closed: {closes!r} is missing")
        return ids

    def chop(self, item: Any) -> Chunk:
        chunk = super().chop(item)
        return replace(chunk, coordinates=self.notes.numbers(chunk.values[None])[0][:, None])


def _mark(encoding: Encoding, mark: str) -> int:
    """The one id of a mark. Raises ValueError where it is not one id."""
    try:
        ids = encoding.encode(mark)
    except ValueError as error:
        raise ValueError(f"no text of the training data has the mark {mark!r} of notes: {error}") from error
    if len(ids) != 1:
        raise ValueError(f"the mark {mark!r} of notes is {len(ids)} ids of this encoding; a mark must be one")
    return ids[0]


class NotedTextTokenizer(IdTokenizer):
    """Ids of text to vectors, as `use: text`; what the model writes between two marks is a note as well."""

    Chopper = NotedTextPreprocessor
