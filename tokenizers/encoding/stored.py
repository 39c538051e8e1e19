"""Creates encodings by name, and loads saved encodings."""

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
from .base import MOST_IDS, ByteEncoding, CharacterEncoding, Encoding, NumberEncoding, well_formed
from .byte_pairs import GPT2_PATTERN, PATTERN, BpeEncoding, Extended, TiktokenEncoding, train_bpe  # fmt: skip
from .directory import VOCABULARY, DirectoryEncoding


def make_encoding(
    name: str, vocabulary: int | None, texts: Callable[[], Iterable[str]], trust: Trust = EVERYTHING
) -> Encoding:
    """Returns the encoding with a name from a YAML. `texts` returns the training texts and is called only for
    `characters` and `bpe`. `vocabulary` is the number of ids including the start token; it is required for `bpe` and
    `numbers`, and must be None for all other names. The ranks of a public encoding are downloaded if `trust` allows the
    host. Raises ValueError if the name is unknown, if `vocabulary` is missing, out of range or not allowed, and if a
    corpus or the ranks do not suffice."""
    if name in ("bpe", "numbers"):
        return _sized_encoding(name, vocabulary, texts)
    if vocabulary is not None:
        raise ValueError(f"vocabulary: {vocabulary} is for encoding: bpe or numbers only; {name!r} has a fixed one")
    if name == "bytes":
        return ByteEncoding()
    if name == "characters":
        return CharacterEncoding("".join(sorted(set(chain.from_iterable(map(well_formed, texts()))))))
    return TiktokenEncoding(name, trust)


def _sized_encoding(name: str, vocabulary: int | None, texts: Callable[[], Iterable[str]]) -> Encoding:
    """Returns an encoding with a number of ids that the YAML sets."""
    what = (
        "the total number of ids (at least 257), such as 4096"
        if name == "bpe"
        else "the number of ids, including the start token"
    )
    if vocabulary is None:
        raise ValueError(f"encoding: {name} needs vocabulary: {what}")
    return train_bpe(map(well_formed, texts()), vocabulary) if name == "bpe" else NumberEncoding(vocabulary)


Id = Annotated[int, Field(ge=0, lt=MOST_IDS)]


class Frame(Record):
    """The key `frame` of an `encoding.json`: the ids around the texts of a published model. The fields are explained in
    `Vocabulary.frame`."""

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
    """Settings of Whisper, which are read by `projects/whisper/transcription.py`."""


class EncodingRecord(Record):
    """The content of an `encoding.json`. For bytes with a mask:
    {"name": "bytes", "own": ["mask"], "fingerprint": "..."}."""

    name: str
    fingerprint: str
    own: list[str] = []
    pattern: str = PATTERN
    symbols: str = ""
    vocabulary: Annotated[int, Field(ge=2, le=MOST_IDS)] | None = None
    start: Id | None = None
    frame: Frame = Frame()


def load_encoding(folder: Path, trust: Trust = NOTHING) -> Encoding:
    """Returns the encoding that `Encoding.save` has written to a folder. Raises DataError if a file is missing or
    damaged, if ranks are not available, or if the fingerprint of the loaded encoding is not the saved one."""
    file = Path(folder) / "encoding.json"
    parts = read_record(file, EncodingRecord)
    try:
        encoding = _encoding_of(Path(folder), parts, trust)
    except (ValueError, KeyError, TypeError) as error:  # tiktoken raises them for a bad pattern, too
        raise DataError(f"no encoding can be read from {file}: {error}") from error
    possible = encoding.fingerprint, encoding.vocabulary_fingerprint  # the latter was saved until November 2026
    if parts.fingerprint not in possible:
        raise DataError(f"the encoding read from {file} is not the one that was saved: its fingerprint differs")
    return encoding


def _encoding_of(folder: Path, parts: EncodingRecord, trust: Trust) -> Encoding:
    """Returns the encoding of a record and the other files in its folder."""
    is_characters = parts.name == "characters"
    encoding = CharacterEncoding(parts.symbols) if is_characters else _other_encoding(folder, parts, trust)
    return Extended(encoding, parts.own) if parts.own else encoding


def _other_encoding(folder: Path, parts: EncodingRecord, trust: Trust) -> Encoding:
    """Returns the stored encoding of a `folder`, whose symbols are not single characters."""
    frame = {name: value for name, value in parts.frame.model_dump().items() if value is not None}
    if parts.name == "bpe":
        encoding: Encoding = bpe_of(folder / "ranks.tiktoken", parts.pattern)
    elif parts.name == "numbers":
        encoding = NumberEncoding(parts.vocabulary or 0, parts.start, frame)
    elif parts.name == "directory":
        encoding = DirectoryEncoding(read_text(folder / "tokenizer.json", VOCABULARY), parts.start or 0, frame)
    else:
        encoding = make_encoding(parts.name, None, lambda: (), trust)
        encoding.frame = frame
    return encoding


def bpe_of(file: Path, pattern: str | None) -> BpeEncoding:
    """Returns the encoding with the ranks of a file. Raises ValueError if the pattern is unknown or a line is wrong."""
    if pattern not in (PATTERN, GPT2_PATTERN):
        raise ValueError("its pattern is not one of chopmix's: other regular expressions may never finish")
    pairs = [line.split(" ") for line in read_text(file, VOCABULARY).splitlines()]
    if bad := [number for number, pair in enumerate(pairs, start=1) if len(pair) != 2 or not pair[1].isdecimal()]:
        raise ValueError(f"{file.name}, line {bad[0]} is not a piece and its rank")
    return BpeEncoding({base64.b64decode(piece): int(rank) for piece, rank in pairs}, pattern)
