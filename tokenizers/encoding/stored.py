"""Encodings made by name, and read from the files that they were saved in."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from ...files.reading import DataError, read_text
from ...files.records import Record, read_record
from ...files.trust import EVERYTHING, NOTHING, Trust
from .base import MOST, ByteEncoding, CharacterEncoding, Encoding, NumberEncoding, well_formed
from .byte_pairs import GPT2_PATTERN, PATTERN, BpeEncoding, Extended, TiktokenEncoding, train_bpe  # fmt: skip
from .directory import VOCABULARY, DirectoryEncoding


def make_encoding(
    name: str, vocabulary: int | None, texts: Callable[[], Iterable[str]], trust: Trust = EVERYTHING
) -> Encoding:
    """The encoding that a YAML names. `texts` gives the training corpus and is called for `characters` and `bpe` only;
    `vocabulary` (ids in all, the start token included) must be given for `bpe` and `numbers`, and for them only. The
    ranks of a public encoding are downloaded if `trust` allows their host. Raises ValueError for an unknown name, or a
    vocabulary that is missing, out of place or impossible."""
    if name == "bpe":
        if vocabulary is None:
            raise ValueError("encoding: bpe needs vocabulary: how many ids to learn, such as 4096")
        return train_bpe(map(well_formed, texts()), vocabulary)
    if name == "numbers":
        if vocabulary is None:
            raise ValueError("encoding: numbers needs vocabulary: how many ids there are, the start token included")
        return NumberEncoding(vocabulary)
    if vocabulary is not None:
        raise ValueError(f"vocabulary: {vocabulary} is for encoding: bpe or numbers only; {name!r} has its own")
    if name == "bytes":
        return ByteEncoding()
    if name == "characters":
        return CharacterEncoding("".join(sorted(set(chain.from_iterable(map(well_formed, texts()))))))
    return TiktokenEncoding(name, trust)


Id = Annotated[int, Field(ge=0, lt=MOST)]


class Frame(Record):
    """How a published model's texts begin and end: the `frame` of an `encoding.json`; its keys as in `Encoding`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    end: Id | None = None
    ends: list[Id] | None = None
    opening: list[Id] | None = None
    before: list[Id] | None = None
    after: list[Id] | None = None
    prompt: list[Id] | None = None
    roles: dict[str, Id] | None = None
    strip: bool | None = None
    whisper: dict[str, Any] | None = None
    """Whisper's protocol, which `projects/whisper/transcription.py` reads."""


class EncodingRecord(Record):
    """An `encoding.json`; of bytes with a mask: {"name": "bytes", "own": ["mask"], "fingerprint": "..."}."""

    name: str
    fingerprint: str
    own: list[str] = []
    pattern: str = PATTERN
    symbols: str = ""
    vocabulary: Annotated[int, Field(ge=2, le=MOST)] | None = None
    start: Id | None = None
    frame: Frame = Frame()


def load_encoding(folder: Path, trust: Trust = NOTHING) -> Encoding:
    """The encoding that `Encoding.save` wrote to a folder. Raises DataError where a file is missing or damaged, or the
    fingerprint differs."""
    file = Path(folder) / "encoding.json"
    parts = read_record(file, EncodingRecord)
    try:
        found = _made(Path(folder), parts, trust)
    except (ValueError, KeyError, TypeError) as error:  # including tiktoken's for a bad pattern
        raise DataError(f"no encoding can be read from {file}: {error}") from error
    if parts.fingerprint not in (found.fingerprint, found.vocabulary_fingerprint):  # the latter until November 2026
        raise DataError(f"the encoding read from {file} is not the one that was saved: its fingerprint differs")
    return found


def _made(folder: Path, parts: EncodingRecord, trust: Trust) -> Encoding:
    """The encoding of a record and the other files in its folder."""
    frame = {name: value for name, value in parts.frame.model_dump().items() if value is not None}
    if parts.name == "bpe":
        if parts.pattern not in (PATTERN, GPT2_PATTERN):
            raise ValueError("its pattern is none of chopmix's own: a regular expression may take forever")
        pairs = [line.split(" ") for line in read_text(folder / "ranks.tiktoken", VOCABULARY).splitlines()]
        if wrong := [number for number, pair in enumerate(pairs, start=1) if len(pair) != 2 or not pair[1].isdecimal()]:
            raise ValueError(f"ranks.tiktoken, line {wrong[0]} is no piece with its rank")
        found: Encoding = BpeEncoding({base64.b64decode(piece): int(rank) for piece, rank in pairs}, parts.pattern)
    elif parts.name == "characters":
        found = CharacterEncoding(parts.symbols)
    elif parts.name == "numbers":
        found = NumberEncoding(parts.vocabulary or 0, parts.start, frame)
    elif parts.name == "directory":
        found = DirectoryEncoding(read_text(folder / "tokenizer.json", VOCABULARY), parts.start or 0, frame)
    else:
        found = make_encoding(parts.name, None, lambda: (), trust)
        found.frame = frame
    return Extended(found, parts.own) if parts.own else found
