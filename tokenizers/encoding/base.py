"""Vocabularies, and encodings: the vocabularies that convert text to ids and back. This file contains bytes, characters
and numbers; BPE, tiktoken's encodings and imported tokenizers are in the other files of this folder.

An encoding treats a document as *data*: `<|endoftext|>` inside a document is 13 ordinary characters. Every encoding has
a special id `start`, which precedes every document and with which generation begins. Decoding returns exactly the text
that was encoded (except for `DirectoryEncoding`). Encoding raises UnencodableText for a text that an encoding cannot
represent."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from ...files.reading import DataError
from ...files.writing import write_text
from ...models.generation.constraints import Constraint
from ..media.lettering import lettered


class Unit(NamedTuple):
    """The unit in which the loss is reported. The unit is independent of the tokens, so models with different tokens
    can be compared."""

    metric: str
    """The name of the metric: `bits_per_byte`."""
    description: str
    """The unit, for messages: `bits per byte of text`."""
    in_bits: bool = True
    """True: the metric is in bits. False: the metric is in nats."""


BITS_PER_BYTE = Unit("bits_per_byte", "bits per byte of text")


class Vocabulary:
    """Base of all vocabularies, which convert items to ids and back. A subclass defines `size`, `start`, `specials`,
    `encode` and `restore`, and overrides other members where the default does not fit."""

    unit: ClassVar[Unit] = BITS_PER_BYTE
    endings: ClassVar[tuple[str, ...]] = ()
    """The suffixes of the files to which an item can be written, such as `.png`. The first suffix is the default."""
    rate: int | None = None
    """The sampling rate in hertz if items are sounds; otherwise None."""
    size: int
    """The number of ids, including special ids and gaps (unused ids)."""
    start: int
    """The special id that precedes every item. Generation begins with this id."""
    specials: Mapping[int, str]
    """The printable name of each special id."""
    frame: Mapping[str, Any] = {}
    """Settings that replace the defaults of the properties `end`, `ends`, `opening`, `before`, `after` and `roles`. For
    texts the frame may also contain `prompt`, the ids before a text that is continued, and `strip`, whether white space
    around generated text is removed."""

    @property
    def length(self) -> int | None:
        """The number of ids of every item; None if items differ in their number of ids."""
        return None

    @property
    def end(self) -> int:
        """The special id that ends a generated item."""
        return self.frame.get("end", self.start)

    @property
    def ends(self) -> frozenset[int]:
        """All special ids that end a generated item. Most models have only one such id."""
        return frozenset(self.frame.get("ends", (self.end,)))

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that follow `start` in every generated item, for example the language and the task in Whisper."""
        return tuple(self.frame.get("opening", ()))

    @property
    def before(self) -> tuple[int, ...]:
        """The ids before an item that is read but not generated, such as BERT's [CLS]."""
        return tuple(self.frame.get("before", (self.start,)))

    @property
    def after(self) -> tuple[int, ...]:
        """The ids after an item that is read but not generated, such as BERT's [SEP]."""
        return tuple(self.frame.get("after", ()))

    @property
    def roles(self) -> Mapping[str, int]:
        """The special ids by their role in tasks (`mask`, `sentinel_0`, ...)."""
        return self.frame.get("roles", {})

    def encode(self, item: Any) -> list[int]:
        """Returns the ids of an item, without special ids. Raises ValueError if the vocabulary cannot represent the
        item."""
        raise NotImplementedError

    def restore(self, ids: Iterable[int]) -> Any:
        """Returns the item of these ids (the inverse of `encode`). Special ids are ignored. Raises ValueError if an id
        is outside the vocabulary, or if no item has these ids."""
        raise NotImplementedError

    def units(self, item: Any) -> float:
        """Returns the size of an item, for example in bytes of text. The loss is divided by this number to give the
        metric `unit.metric`."""
        raise NotImplementedError

    def content(self, item: Any, ending: str) -> bytes:
        """Returns the bytes of a file with this item; `ending` is one of `endings`."""
        raise NotImplementedError

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """Returns an image of an incompletely generated item, in which some ids may be the id `mask`. The base class
        shows the ids as text."""
        return lettered("".join("░" if id == mask else self.shown(id) for id in ids))

    @property
    def well_formed(self) -> Constraint | None:
        """The constraint on generated ids with which every result of a generation can be restored to an item; None if
        every sequence of ids can be restored."""
        return None

    def shown(self, id: int) -> str:
        """Returns the printable form of one id: `<|image|>` for a special id, otherwise the number."""
        return self.specials.get(id, str(id))

    @cached_property
    def plain(self) -> np.ndarray:
        """Booleans (v,): True for the ids of the content of an item, False for special ids and for ids in `before` or
        `after`."""
        excluded = {*self.specials, *self.before, *self.after, self.start, self.end}
        return np.array([number not in excluded for number in range(self.size)])

    @property
    def used(self) -> np.ndarray:
        """Booleans (v,): False for unused ids, the gaps in the numbering. Encodings also return False for special
        ids."""
        return np.ones(self.size, dtype=bool)

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        """Returns the part of a JSON answer for an item with these ids: {"text": ...} for a text, otherwise {"ids":
        [...]} without special ids."""
        return {"ids": [id for id in ids if self.plain[id]]}

    def known(self, ids: Iterable[int]) -> list[int]:
        """Returns the ids as a list. Raises ValueError if an id is outside the vocabulary."""
        listed = [int(i) for i in ids]
        if invalid := [i for i in listed if not 0 <= i < self.size]:
            raise ValueError(f"id {invalid[0]} is outside {self.title}, which has {self.size} ids")
        return listed

    @property
    def title(self) -> str:
        """The name of the vocabulary in messages: `encoding 'bytes'`."""
        return "the vocabulary"

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of all settings that determine the ids of an item."""
        settings = sorted((field.name, repr(getattr(self, field.name))) for field in fields(self))
        return hashlib.sha256(repr((type(self).__name__, settings)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodedVocabulary(Vocabulary):
    """Base of the vocabularies in which every id below `start` is the code of a part of an item, such as a patch. The
    id `start` starts and ends an item; the special ids of the roles `own` follow. A subclass defines `start`."""

    kind: ClassVar[str]
    """The kind of item. The start id is named after it: `image` gives `<|image|>`."""
    own: tuple[str, ...] = ()
    """The roles of additional special ids, such as `mask`."""

    @property
    def size(self) -> int:
        return self.start + 1 + len(self.own)

    @property
    def before(self) -> tuple[int, ...]:
        return ()

    @property
    def roles(self) -> dict[str, int]:
        return {name: self.start + 1 + number for number, name in enumerate(self.own)}

    @property
    def specials(self) -> dict[int, str]:
        return {self.start: f"<|{self.kind}|>"} | {id: f"<|{name}|>" for name, id in self.roles.items()}


MOST_IDS = 2**24
"""The largest number of ids of an encoding."""

START = "<|endoftext|>"
"""The printable name of the start token, like in GPT-2. This token ends a document and starts the next one."""


class UnencodableText(ValueError):
    """Raised for text that an encoding cannot represent. `args` are the part of the text that fails, the position of
    its first character, and the reason."""

    def __str__(self) -> str:
        return "{} at position {} {}".format(*self.args)


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """Context manager: raises DataError in place of every Exception and every PanicException inside the `with` block;
    `what` begins the message. Rust libraries raise PanicException, which is not a subclass of Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {error}") from None


def well_formed(text: str) -> str:
    """Returns the text unchanged. Raises UnencodableText if the text contains a lone surrogate, which UTF-8 cannot
    represent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"lone surrogate U+{ord(text[error.start]):04X}"
        raise UnencodableText(what, error.start, "is not a Unicode character") from None
    return text


class Encoding(Vocabulary):
    """Base of all encodings, the vocabularies whose items are texts. A subclass defines the attributes below, `encode`,
    and `parts` if more than the name is needed to load the encoding."""

    endings = (".txt", ".smi")
    name: str
    """The name in a YAML (`bytes`, `characters`, `bpe`, `numbers` or a tiktoken encoding), or `directory` in an
    imported model."""
    pieces: Sequence[bytes]
    """The bytes of each id; empty for special ids and for gaps in the numbering."""

    def prompted(self, text: str | None) -> list[int]:
        """Returns the ids of a text that is to be continued, preceded by the `prompt` ids of the frame (default: the
        start token). If `text` is None or empty, returns the `prompt` ids, or the start token if there are no `prompt`
        ids."""
        prefix = self.frame.get("prompt", (self.start,))
        return [*prefix, *self.encode(text)] if text else [*(prefix or (self.start,))]

    def restore(self, ids: Iterable[int]) -> str:
        """Returns the text of generated ids, without surrounding white space if the frame sets `strip`."""
        text = self.decode(ids)
        return text.strip() if self.frame.get("strip") else text

    def stream(self, before: Sequence[int] = ()) -> TextStream:
        """Returns a stream that converts ids to text one at a time. `before` are the ids that precede the first id of
        the stream."""
        return TextStream(self)

    @property
    def size(self) -> int:
        return len(self.pieces)

    @property
    def title(self) -> str:
        return f"encoding {self.name!r}"

    def shown(self, id: int) -> str:
        """Returns the text of one id."""
        return self.decode([id], specials=True)

    @cached_property
    def used(self) -> np.ndarray:
        return np.array([bool(piece) for piece in self.pieces])

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"text": self.decode(ids)}

    def units(self, item: str) -> float:
        """Returns the number of UTF-8 bytes of a text."""
        return len(item.encode())

    def content(self, item: str, ending: str) -> bytes:
        return f"{item}\n".encode()

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without special ids. Raises UnencodableText (a ValueError)."""
        raise NotImplementedError

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text. Some encodings compute the texts in parallel."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """Returns the bytes of ids. Special ids are skipped; with `specials` the printable names of special ids are
        returned instead. Raises ValueError if an id is outside the vocabulary."""
        valid = self.known(ids)
        names = {i: self.specials.get(i, f"<|{i}|>").encode() for i in set(valid)} if specials else {}
        return b"".join(self.pieces[i] or names.get(i, b"") for i in valid)

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """Returns the result of `decode_bytes` as text, with U+FFFD in place of bytes that are not UTF-8."""
        return self.decode_bytes(ids, specials).decode(errors="replace")

    def parts(self) -> dict[str, str | int]:
        """Returns the fields of `encoding.json`, other than `name` and `fingerprint`, that are needed to load the
        encoding."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of the vocabulary and the `rules`, which determine the ids of a text."""
        vocabulary, rules = self.vocabulary_fingerprint, self.rules()
        return hashlib.sha256(f"{vocabulary} {rules}".encode()).hexdigest() if rules else vocabulary

    def rules(self) -> str:
        """Returns a text that, in addition to the vocabulary, the name and the pattern, determines the ids of texts;
        empty if nothing else does."""
        return ""

    @cached_property
    def vocabulary_fingerprint(self) -> str:
        """A sha256 (hex) of the name, the pattern, the special ids and the bytes of every id."""
        digest = hashlib.sha256(repr((self.name, self.parts().get("pattern"), self.start, self.specials)).encode())
        for piece in self.pieces:
            digest.update(len(piece).to_bytes(4, "little") + piece)
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def save(self, folder: Path) -> None:
        """Writes `encoding.json` to `folder`, which is created if missing. BPE also writes `ranks.tiktoken`, and
        DirectoryEncoding also writes `tokenizer.json`."""
        parts = {"name": self.name, **self.parts(), "fingerprint": self.fingerprint}
        write_text(Path(folder) / "encoding.json", json.dumps(parts, ensure_ascii=False, indent=1))


class TextStream:
    """Converts ids to text one at a time. The bytes of an incomplete character are returned when the character is
    complete."""

    def __init__(self, encoding: Encoding):
        self.encoding, self.decoder = encoding, codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, id: int) -> str:
        """Returns the text that one more id adds. Later ids never change this text."""
        return self.decoder.decode(self.encoding.decode_bytes([id]))

    def finish(self) -> str:
        """Returns the remaining text after the last id: U+FFFD for an incomplete character, otherwise an empty
        string."""
        return self.decoder.decode(b"", final=True)


class ByteEncoding(Encoding):
    """UTF-8 bytes: ids 0 to 255; 256 is the start id. Every text can be encoded: "no" is 110, 111."""

    def __init__(self):
        self.name, self.start, self.specials = "bytes", 256, {256: START}
        self.pieces = [bytes([b]) for b in range(256)] + [b""]

    def encode(self, text):
        return list(well_formed(text).encode())


class CharacterEncoding(Encoding):
    """One id per character of the corpus, in code point order; the last id is the start id. The corpus "noon" has the
    ids n 0, o 1, start 2."""

    def __init__(self, symbols: str):
        """`symbols`: all characters. Raises ValueError if `symbols` is empty, not sorted by code point, or contains a
        character twice."""
        if not well_formed(symbols) or list(symbols) != sorted(set(symbols)):
            raise ValueError("a character vocabulary needs at least one character, each once, in code point order")
        self.name, self.symbols, self.start, self.specials = "characters", symbols, len(symbols), {len(symbols): START}
        self.pieces = [symbol.encode() for symbol in symbols] + [b""]
        self._ids = {symbol: i for i, symbol in enumerate(symbols)}

    def encode(self, text):
        try:
            return [self._ids[symbol] for symbol in text]
        except KeyError:
            position = next(i for i, symbol in enumerate(well_formed(text)) if symbol not in self._ids)
            what = f"character {text[position]!r} (U+{ord(text[position]):04X})"
            few = f": {', '.join(map(repr, self.symbols))}" if len(self.symbols) <= 30 else ""
            why = f"is not among the {len(self.symbols)} characters of this vocabulary{few}"
            raise UnencodableText(what, position, why) from None

    def parts(self):
        return {"symbols": self.symbols}


class NumberEncoding(Encoding):
    """Data that already consists of ids, written as `<12><7><0>`: text that was tokenized elsewhere, or data other than
    text."""

    def __init__(self, vocabulary: int, start: int | None = None, frame: Mapping[str, Any] | None = None):
        """`vocabulary`: the number of ids, 2 to `MOST_IDS`. The id `start` (by default the last one) and the ids of the
        `frame` are special and never occur in the data. Raises ValueError if `vocabulary` is out of range."""
        if not 2 <= vocabulary <= MOST_IDS:
            raise ValueError(
                f"vocabulary: {vocabulary} must be from 2 (one number and the start token) to {MOST_IDS:,}"
            )
        self.name, self.start, self.frame = "numbers", vocabulary - 1 if start is None else start, dict(frame or {})
        framing = {self.end, *self.before, *self.after, *self.roles.values()}
        self.specials = {i: f"<|{i}|>" for i in sorted(framing)} | {self.start: START}
        self.pieces = Numbers(vocabulary, self.specials)

    @cached_property
    def used(self):
        is_data = np.ones(self.size, dtype=bool)
        is_data[[id for id in self.specials if id < self.size]] = False
        return is_data

    def encode(self, text):
        ids = []
        for match in re.finditer(r"<(0|[1-9][0-9]{0,8})>|.", well_formed(text), re.DOTALL):
            id = int(match[1] or -1)
            if not 0 <= id < self.size or id in self.specials:
                why = f"is not a number from <0> to <{self.size - 1}>, or it is a special id"
                raise UnencodableText(f"{text[match.start() : match.start() + 12]!r}", match.start(), why)
            ids.append(id)
        return ids

    def parts(self):
        return {"vocabulary": self.size, "start": self.start} | ({"frame": self.frame} if self.frame else {})


class Numbers(Sequence[bytes]):
    """The sequence of the pieces `<0>`, `<1>`, ..., with empty pieces for the ids in `special`. Pieces are created on
    access, because there may be millions of them."""

    def __init__(self, count: int, special: Mapping[int, str]):
        self.count, self.special = count, special

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number):
        id = range(self.count)[number]
        return b"" if id in self.special else f"<{id}>".encode()
