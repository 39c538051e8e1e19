"""Text to ids and back: bytes, characters, a byte-level BPE trained on the corpus, any of tiktoken's encodings,
numbers.

An encoding turns *data* into ids: `<|endoftext|>` inside a document is 13 ordinary characters. The one special id that
every encoding has is `start`: it is put before every document, and generation begins with it. Decoding gives back
exactly the text that was encoded (but see `DirectoryEncoding`); text that an encoding cannot hold raises
UnencodableText.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...files.reading import DataError
from ...files.writing import write_text
from .vocabulary import Vocabulary

MOST = 2**24
"""The most ids of an encoding."""

START = "<|endoftext|>"
"""The printable name of the start token, as in GPT-2: it ends a document and starts the next."""


class UnencodableText(ValueError):
    """Text that an encoding cannot hold. Its `args`: what it cannot hold, at which character, and why."""

    def __str__(self) -> str:
        return "{} at place {} {}".format(*self.args)


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Raises DataError, its message begun by `what`, for whatever a library in Rust raises inside: nothing narrower
    than Exception, and PanicException, which is none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {error}") from None


def well_formed(text: str) -> str:
    """The text itself. Raises UnencodableText for a lone surrogate: half of a pair, which no Unicode text contains."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"lone surrogate U+{ord(text[error.start]):04X}"
        raise UnencodableText(what, error.start, "is not a Unicode character") from None
    return text


class Encoding(Vocabulary):
    """Base of all encodings: vocabularies whose items are texts. A subclass gives the attributes below, `encode`, and
    `parts` where more must be saved."""

    endings = (".txt", ".smi")
    name: str
    """Its name in a YAML: `bytes`, `characters`, `bpe`, `numbers`, or one of tiktoken's; `directory`: imported."""
    pieces: Sequence[bytes]
    """The bytes of each id, by id; empty for special ids and for gaps in the numbering."""

    def prompted(self, text: str | None) -> list[int]:
        """The ids of a text that is to be continued, behind the start token or what a published model's tokenizer puts
        there (which may be nothing). Without a text: those with which a new document begins."""
        before = self.frame.get("prompt", (self.start,))
        return [*before, *self.encode(text)] if text else [*(before or (self.start,))]

    def restore(self, ids: Iterable[int]) -> str:
        """The text of generated ids, without white space around it where the frame says `strip`."""
        text = self.decode(ids)
        return text.strip() if self.frame.get("strip") else text

    def stream(self, before: Sequence[int] = ()) -> TextStream:
        """A stream that turns ids into text one by one; `before`: the ids that precede them."""
        return TextStream(self)

    @property
    def size(self) -> int:
        return len(self.pieces)

    @property
    def title(self) -> str:
        return f"encoding {self.name!r}"

    def shown(self, id: int) -> str:
        """The text of one id."""
        return self.decode([id], specials=True)

    @cached_property
    def used(self) -> np.ndarray:
        return np.array([bool(piece) for piece in self.pieces])

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"text": self.decode(ids)}

    def units(self, item: str) -> float:
        """Its UTF-8 bytes."""
        return len(item.encode())

    def content(self, item: str, ending: str) -> bytes:
        return f"{item}\n".encode()

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special ones. Raises UnencodableText (a ValueError)."""
        raise NotImplementedError

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of several texts, in parallel where the encoding can."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """The bytes of ids; special ids give nothing, or with `specials` their printable names. Raises ValueError for
        an id outside the vocabulary."""
        known = self.known(ids)
        names = {i: self.specials.get(i, f"<|{i}|>").encode() for i in set(known)} if specials else {}
        return b"".join(self.pieces[i] or names.get(i, b"") for i in known)

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text of ids, with U+FFFD where bytes are not UTF-8; otherwise as `decode_bytes`."""
        return self.decode_bytes(ids, specials).decode(errors="replace")

    def parts(self) -> dict[str, str | int]:
        """What `encoding.json` holds besides name and fingerprint, from which the encoding is built again."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of all that decides which ids a text has: the vocabulary, and `rules` besides."""
        known, rules = self.vocabulary_fingerprint, self.rules()
        return hashlib.sha256(f"{known} {rules}".encode()).hexdigest() if rules else known

    def rules(self) -> str:
        """What decides on ids besides the vocabulary, the name and the pattern; empty where nothing does."""
        return ""

    @cached_property
    def vocabulary_fingerprint(self) -> str:
        """A sha256 (hex) of the name, the pattern, the special ids and the bytes of every id."""
        found = hashlib.sha256(repr((self.name, self.parts().get("pattern"), self.start, self.specials)).encode())
        for piece in self.pieces:
            found.update(len(piece).to_bytes(4, "little") + piece)
        return found.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def save(self, folder: Path) -> None:
        """Write the encoding to `folder` (made where missing): `encoding.json`, and for a BPE `ranks.tiktoken`, for a
        DirectoryEncoding `tokenizer.json`."""
        parts = {"name": self.name, **self.parts(), "fingerprint": self.fingerprint}
        write_text(Path(folder) / "encoding.json", json.dumps(parts, ensure_ascii=False, indent=1))


class TextStream:
    """Ids that come one by one, as text: bytes are held back until they are a whole character."""

    def __init__(self, encoding: Encoding):
        self.encoding, self.decoder = encoding, codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, id: int) -> str:
        """The new text after one more id; it never changes later."""
        return self.decoder.decode(self.encoding.decode_bytes([id]))

    def finish(self) -> str:
        """The text held back when no more ids come: U+FFFD for an incomplete character."""
        return self.decoder.decode(b"", final=True)


class ByteEncoding(Encoding):
    """UTF-8 bytes: ids 0 to 255, and 256 starts a document. It can hold every text: "no" is 110, 111."""

    def __init__(self):
        self.name, self.start, self.specials = "bytes", 256, {256: START}
        self.pieces = [bytes([b]) for b in range(256)] + [b""]

    def encode(self, text):
        return list(well_formed(text).encode())


class CharacterEncoding(Encoding):
    """One id per character of the corpus, in code point order; the last id starts a document. Of the corpus "noon": n
    0, o 1, start 2."""

    def __init__(self, symbols: str):
        """`symbols`: all characters. Raises ValueError when there are none, or they are unsorted or not unique."""
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
    """Ids that are the data themselves, written `<12><7><0>`: for text that was tokenized elsewhere, or data that is
    not text."""

    def __init__(self, vocabulary: int, start: int | None = None, frame: Mapping[str, Any] | None = None):
        """`vocabulary`: how many ids, 2 to `MOST`; `start` (by default the last) and those of the `frame` are special,
        never data. Raises ValueError for another vocabulary."""
        if not 2 <= vocabulary <= MOST:
            raise ValueError(f"vocabulary: {vocabulary} must be 2 (a number and the start token) to {MOST:,}")
        self.name, self.start, self.frame = "numbers", vocabulary - 1 if start is None else start, dict(frame or {})
        framing = {self.end, *self.before, *self.after, *self.roles.values()}
        self.specials = {i: f"<|{i}|>" for i in sorted(framing)} | {self.start: START}
        self.pieces = Numbers(vocabulary, self.specials)

    @cached_property
    def used(self):
        found = np.ones(self.size, dtype=bool)
        found[[id for id in self.specials if id < self.size]] = False
        return found

    def encode(self, text):
        found = []
        for match in re.finditer(r"<(0|[1-9][0-9]{0,8})>|.", well_formed(text), re.DOTALL):
            id = int(match[1] or -1)
            if not 0 <= id < self.size or id in self.specials:
                why = f"is not a number from <0> to <{self.size - 1}> other than the start"
                raise UnencodableText(f"{text[match.start() : match.start() + 12]!r}", match.start(), why)
            found.append(id)
        return found

    def parts(self):
        return {"vocabulary": self.size, "start": self.start} | ({"frame": self.frame} if self.frame else {})


class Numbers(Sequence[bytes]):
    """The pieces of numbers, `<0>`, `<1>`, ..., made when they are asked for: there may be millions; empty for the ids
    `special`."""

    def __init__(self, count: int, special: Mapping[int, str]):
        self.count, self.special = count, special

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number):
        id = range(self.count)[number]
        return b"" if id in self.special else f"<{id}>".encode()
