"""Encodings by name, and from the files that they were saved in."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from .directory_encoding import DirectoryEncoding
from .encoding import (
    BpeEncoding,
    ByteEncoding,
    CharacterEncoding,
    Encoding,
    Extended,
    NumberEncoding,
    TiktokenEncoding,
    train_bpe,
    well_formed,
)  # fmt: skip


def make_encoding(name: str, vocabulary: int | None, texts: Callable[[], Iterable[str]]) -> Encoding:
    """The encoding a YAML asks for; `texts` gives the training corpus and is called for `characters` and `bpe` only.
    `vocabulary` (ids in all, the start token included) belongs to `bpe` and `numbers`, and there it must be given. Raises
    ValueError for an unknown name or a vocabulary that is missing, out of place or impossible."""
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
    return TiktokenEncoding(name)


def load_encoding(folder: Path) -> Encoding:
    """Read what `save` wrote. Raises ValueError naming what is missing, damaged or not what was saved."""
    file = Path(folder) / "encoding.json"
    try:
        parts = json.loads(file.read_text(encoding="utf-8"))
        if parts["name"] == "bpe":
            lines = (Path(folder) / "ranks.tiktoken").read_text(encoding="ascii").splitlines()
            ranks = {base64.b64decode(piece): int(rank) for piece, rank in map(str.split, lines)}
            found: Encoding = BpeEncoding(ranks, parts["pattern"])
        elif parts["name"] == "characters":
            found = CharacterEncoding(parts["symbols"])
        elif parts["name"] == "numbers":
            found = NumberEncoding(parts["vocabulary"], parts["start"], parts.get("frame"))
        elif parts["name"] == "directory":
            found = DirectoryEncoding(Path(folder) / "tokenizer.json", parts["start"], parts["frame"])
        else:
            found = make_encoding(parts["name"], None, lambda: ())
        found = Extended(found, parts["own"]) if parts.get("own") else found
        fingerprint = parts["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no encoding can be read from {file}: {error}") from error
    if found.fingerprint != fingerprint:
        raise ValueError(f"the encoding read from {file} is not the one that was saved: its fingerprint differs")
    return found
