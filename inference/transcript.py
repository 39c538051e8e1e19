"""What was said in a sound, with the times at which it was said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .whisper_decoding import Said


class Segment(NamedTuple):
    """A piece of text with the seconds in which it was said."""

    start: float
    end: float
    raw: str
    """Its text as the model wrote it, with the space before it, where the language has spaces."""
    said: Said
    ids: list[int]
    """Its own tokens, timestamps included."""

    @property
    def text(self) -> str:
        """Its text without the spaces around it."""
        return self.raw.strip()


@dataclass(frozen=True)
class Transcript:
    """What is said in a file: to be gone through once where its segments still have to be heard."""

    language: str
    """The code of the language that was listened for: given, detected, or the only one that the model knows."""
    segments: Iterable[Segment]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)
