"""Text with notes. A note is the text between two marks, such as `[` and `]`. Its tokens have the number of the note as
coordinate on the axis `note`, which an attention graph can use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ..models.generation.notes import AXIS, Notes
from .base import Chunk, Example, Role
from .chopping.ids import IdTokenizer
from .encoding.base import Encoding
from .text import TextChopper, TextPreprocessor


@dataclass(frozen=True, kw_only=True)
class NotedTextPreprocessor(TextPreprocessor):
    """Converts text to ids like `use: text`. Text between two marks is a note. `notes` lists the two marks: the first
    one opens a note, the second one closes it. The marks must differ, and each mark must be exactly one id of the
    encoding (with `characters`: one character), otherwise ValueError is raised."""

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
        """Returns a chopper with notes for a chopper without notes. Raises ValueError if a mark is not exactly one
        id."""
        ids = [_mark(text.vocabulary, mark) for mark in self.notes]
        return NotedTextChopper(vocabulary=text.vocabulary, generated=text.generated, notes=Notes(*ids),
                                note_marks=tuple(self.notes))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NotedTextChopper(TextChopper):
    """Converts text to ids. The coordinate of a token is the number of its note, from 0, and NaN outside of notes. The
    marks belong to the note. Example: the text "no[b]", which a task generates, as characters:

    values       <s>  n    o    [  b  ]
    coordinates  nan  nan  nan  0  0  0      (6, 1)
    """

    axes: ClassVar[tuple[str, ...]] = (AXIS,)
    notes: Notes = field()  # without `field()` the None of the base class would be its default
    note_marks: tuple[str, str]
    """The two marks as text."""

    def encoded(self, item: str | Sequence[int]) -> list[int]:
        """Returns the ids of a text. Each mark becomes one id, whatever text is around it. Raises ValueError if a note
        is not closed, begins inside another note, or is closed without being open. Sequences of ids are not checked."""
        if not isinstance(item, str):
            return super().encoded(item)
        opened_at, ids = 0, []
        open_mark, close_mark = self.note_marks
        mark_ids = {open_mark: [self.notes.open], close_mark: [self.notes.close]}
        for part in re.split("(" + "|".join(map(re.escape, self.note_marks)) + ")", item):
            token = len(ids) + 1
            if part == open_mark and opened_at:
                raise ValueError(f"{part!r} at token {token} is inside the note that begins at token {opened_at}")
            if part == close_mark and not opened_at:
                raise ValueError(f"{part!r} at token {token} closes a note, but no note is open")
            if part in mark_ids:
                opened_at = token if part == open_mark else 0
            ids += mark_ids.get(part) or super().encoded(part)
        if opened_at:
            raise ValueError(f"the note that begins at token {opened_at} has no closing {close_mark!r}")
        return ids

    def chop(self, item: Any) -> Chunk:
        chunk = super().chop(item)
        return replace(chunk, coordinates=self.notes.numbers(chunk.values[None])[0][:, None])


def _mark(encoding: Encoding, mark: str) -> int:
    """Returns the id of a mark. Raises ValueError if the mark is not exactly one id."""
    try:
        ids = encoding.encode(mark)
    except ValueError as error:
        raise ValueError(f"notes: no text of the training data contains the mark {mark!r}: {error}") from error
    if len(ids) != 1:
        raise ValueError(f"notes: the mark {mark!r} is {len(ids)} ids of this encoding; it must be one id")
    return ids[0]


class NotedTextTokenizer(IdTokenizer):
    """Maps ids of text to vectors, like `use: text`. In generated text, too, the text between two marks is a note."""

    Chopper = NotedTextPreprocessor


EXAMPLE = Example(
    options={"encoding": "bytes", "notes": ["<", ">"]},
    items=lambda: ["abcdefghij", "zyxwvutsrq"],
    generated=True,
)
