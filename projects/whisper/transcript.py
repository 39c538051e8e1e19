"""Transcripts: the text of a sound in segments with their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from .decoding import Said


class Segment(NamedTuple):
    """A piece of a transcript; `start` and `end` are seconds from the beginning of the file."""

    start: float
    end: float
    raw: str
    """Its text as the model wrote it, with the space before it, where the language has spaces."""
    said: Said
    """The decoding of the whole window that it is from."""
    ids: list[int]
    """The ids of its tokens, timestamps included."""

    @property
    def text(self) -> str:
        """Its text without white space around it."""
        return self.raw.strip()


@dataclass(frozen=True)
class Transcript:
    """The segments of a file in order. Where they come from `Transcriber.transcribe` each is decoded when it is asked
    for, and they can be gone through once."""

    language: str
    """The code of the language that was decoded: given, detected, or the only one that the model knows."""
    segments: Iterable[Segment]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)
