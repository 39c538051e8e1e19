"""Text to ids and back: bytes, characters, a byte-level BPE trained on the corpus, any of tiktoken's encodings,
numbers.

An encoding turns *data* into ids: text such as `<|endoftext|>` inside a document is twelve or so ordinary characters.
The one special id that everybody needs is `start`: it stands before every document and generation begins with it.
Every encoding gives back exactly the text it was given; what it cannot hold it refuses, saying where.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..files.writing import write_text

MOST = 2**24
"""Ids that an encoding has at most."""

START = "<|endoftext|>"
"""The printable name of the start token, as in GPT-2: it ends a document and starts the next."""


class UnencodableText(ValueError):
    """Text that an encoding cannot hold. Its `args`: what stands there, at which character, why that is a problem."""

    def __str__(self) -> str:
        return "{} at place {} {}".format(*self.args)


def well_formed(text: str) -> str:
    """The text itself. Raises UnencodableText at a lone surrogate: half of a pair, which no Unicode text contains."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"lone surrogate U+{ord(text[error.start]):04X}"
        raise UnencodableText(what, error.start, "is not a Unicode character") from None
    return text


class Encoding:
    """Base of all encodings. A subclass gives these attributes, `encode`, and `parts` where it has some."""

    name: str
    """What a YAML calls it: `bytes`, `characters`, `bpe`, or a name of tiktoken's."""
    pieces: Sequence[bytes]
    """The bytes that each id stands for; empty for special ids and for gaps in the numbering."""
    specials: dict[int, str]
    """The printable names of the special ids."""
    start: int
    """The special id put before every document, with which generation begins."""
    frame: Mapping[str, Any] = {}
    """How a published model wants its texts to begin and end, where that is not just `start`: `end`, `opening`,
    `before`, `after`, `prompt`, `roles`; `strip`: whether what it writes begins with a space that is none."""

    @property
    def end(self) -> int:
        """The special id that ends a text which a model writes."""
        return self.frame.get("end", self.start)

    @property
    def ends(self) -> frozenset[int]:
        """All special ids that end it; most models have one."""
        return frozenset(self.frame.get("ends", (self.end,)))

    @property
    def opening(self) -> tuple[int, ...]:
        """What every text that a model writes begins with, behind the start (Whisper's language and task)."""
        return tuple(self.frame.get("opening", ()))

    @property
    def before(self) -> tuple[int, ...]:
        """What stands before a text that is only read."""
        return tuple(self.frame.get("before", (self.start,)))

    @property
    def after(self) -> tuple[int, ...]:
        """What stands after a text that is only read."""
        return tuple(self.frame.get("after", ()))

    def prompted(self, text: str | None) -> list[int]:
        """The ids of a text that is to be continued. Our own models read a start token before every document; a
        published one what its tokenizer puts there, which may be nothing. Without a text: a new document."""
        before = self.frame.get("prompt", (self.start,))
        return [*before, *self.encode(text)] if text else [*(before or (self.start,))]

    def written(self, ids: Iterable[int]) -> str:
        """The text of ids that a model wrote by itself, as an answer to something else."""
        text = self.decode(ids)
        return text.strip() if self.frame.get("strip") else text

    def stream(self, before: Sequence[int] = ()) -> TextStream:
        """What turns ids into text as they come, behind the ids that stand `before` them."""
        return TextStream(self)

    @property
    def roles(self) -> Mapping[str, int]:
        """Special ids by what tasks use them for: `mask`, `sentinel_0`, ..."""
        return self.frame.get("roles", {})

    @property
    def vocabulary(self) -> int:
        """How many ids there are, special ones and gaps included."""
        return len(self.pieces)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special ones. Raises UnencodableText (a ValueError) saying what stands where."""
        raise NotImplementedError

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, in threads where the encoding has them."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """The bytes behind ids; special ids give nothing, or their printable names where `specials` are wanted.
        Raises ValueError for an id outside the vocabulary."""
        known = [int(i) for i in ids]
        if wrong := [i for i in known if not 0 <= i < self.vocabulary]:
            raise ValueError(f"id {wrong[0]} is outside encoding {self.name!r}, which has {self.vocabulary} ids")
        names = {i: self.specials.get(i, f"<|{i}|>").encode() for i in set(known)} if specials else {}
        return b"".join(self.pieces[i] or names.get(i, b"") for i in known)

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text behind ids, with U+FFFD where bytes are no UTF-8; else as `decode_bytes`."""
        return self.decode_bytes(ids, specials).decode(errors="replace")

    def parts(self) -> dict[str, str | int]:
        """What `encoding.json` holds besides the name, to build the encoding again."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) over all that determines encoding: two encodings of one fingerprint give the same ids."""
        found = hashlib.sha256(repr((self.name, self.parts().get("pattern"), self.start, self.specials)).encode())
        for piece in self.pieces:
            found.update(len(piece).to_bytes(4, "little") + piece)
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def save(self, folder: Path) -> None:
        """Write the encoding to `folder` (made where missing): `encoding.json`, and `ranks.tiktoken` for a BPE."""
        parts = {"name": self.name, **self.parts(), "fingerprint": self.fingerprint}
        write_text(Path(folder) / "encoding.json", json.dumps(parts, ensure_ascii=False, indent=1))


class TextStream:
    """Ids that come one after another, as text: whole characters only."""

    def __init__(self, encoding: Encoding):
        self.encoding, self.decoder = encoding, codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, id: int) -> str:
        """The text that is certain after one more id."""
        return self.decoder.decode(self.encoding.decode_bytes([id]))

    def finish(self) -> str:
        """What is left when nothing more comes: U+FFFD for half a character."""
        return self.decoder.decode(b"", final=True)


class ByteEncoding(Encoding):
    """UTF-8 bytes: ids 0 to 255, and 256 starts a document. No text is unknown, and no vocabulary is needed."""

    def __init__(self):
        self.name, self.start, self.specials = "bytes", 256, {256: START}
        self.pieces = [bytes([b]) for b in range(256)] + [b""]

    def encode(self, text):
        return list(well_formed(text).encode())


class CharacterEncoding(Encoding):
    """One id per character of the corpus, in the order of the code points; the last id starts a document."""

    def __init__(self, symbols: str):
        """`symbols` are all characters there are. Raises ValueError when they are unsorted or not unique."""
        if not well_formed(symbols) or list(symbols) != sorted(set(symbols)):
            raise ValueError("a character vocabulary names at least one character, each once, in code point order")
        self.name, self.symbols, self.start, self.specials = "characters", symbols, len(symbols), {len(symbols): START}
        self.pieces = [symbol.encode() for symbol in symbols] + [b""]
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}

    def encode(self, text):
        try:
            return [self._ids[symbol] for symbol in text]
        except KeyError:
            place = next(i for i, symbol in enumerate(well_formed(text)) if symbol not in self._ids)
            what = f"character {text[place]!r} (U+{ord(text[place]):04X})"
            raise UnencodableText(what, place, f"is not among the {len(self.symbols)} of this vocabulary") from None

    def parts(self):
        return {"symbols": self.symbols}


class NumberEncoding(Encoding):
    """Ids that are the data themselves, written `<12><7><0>`: for text that was tokenized elsewhere, or never was
    text."""

    def __init__(self, vocabulary: int, start: int | None = None, frame: Mapping[str, Any] | None = None):
        """`vocabulary` ids in all, of which `start` (by default the last) starts a document and is never data, as are
        those of the `frame`."""
        if not 2 <= vocabulary <= MOST:
            raise ValueError(f"vocabulary: {vocabulary} must be 2 (a number and the start token) to {MOST:,}")
        self.name, self.start, self.frame = "numbers", vocabulary - 1 if start is None else start, dict(frame or {})
        framing = {self.end, *self.before, *self.after, *self.roles.values()}
        self.specials = {i: f"<|{i}|>" for i in sorted(framing)} | {self.start: START}
        self.pieces = [b"" if i in self.specials else f"<{i}>".encode() for i in range(vocabulary)]
        self._ids = {piece.decode(): i for i, piece in enumerate(self.pieces) if piece}

    def encode(self, text):
        found, end = [], 0
        for match in re.finditer(r"<[0-9]+>", well_formed(text)):
            if match.start() != end or match[0] not in self._ids:
                break
            found.append(self._ids[match[0]])
            end = match.end()
        if end != len(text):
            what = f"{text[end : end + 12]!r}"
            raise UnencodableText(
                what, end, f"is not a number from <0> to <{self.vocabulary - 1}> other than the start"
            )
        return found

    def parts(self):
        return {"vocabulary": self.vocabulary, "start": self.start} | ({"frame": self.frame} if self.frame else {})
