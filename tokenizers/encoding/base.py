"""Text to ids and back: bytes, characters, a byte-level BPE trained on the corpus, any of tiktoken's encodings,
numbers.

An encoding turns *data* into ids: `<|endoftext|>` inside a document is 13 ordinary characters. The one special id that
every encoding has is `start`: it is put before every document, and generation begins with it. Decoding gives back
exactly the text that was encoded (but see `DirectoryEncoding`); text that an encoding cannot hold raises
UnencodableText."""

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
    """In what an item is measured, so that models with other tokens can be compared: the bytes of a text."""

    metric: str
    """The name of the metric: `bits_per_byte`."""
    told: str
    """Its unit, for messages: `bits per byte of text`."""
    in_bits: bool = True
    """Whether the metric is in bits, else in nats."""


BITS_PER_BYTE = Unit("bits_per_byte", "bits per byte of text")


class Vocabulary:
    """Base of all vocabularies. A subclass gives `size`, `start`, `specials`, `encode` and `restore`, and what of the
    rest differs."""

    unit: ClassVar[Unit] = BITS_PER_BYTE
    endings: ClassVar[tuple[str, ...]] = ()
    """The endings of the files that an item can be written to, such as `.png`; the first is the usual one."""
    rate: int | None = None
    """Samples per second of items that are sounds."""
    size: int
    """How many ids there are, special ones and gaps included."""
    start: int
    """The special id put before every item, with which generation begins."""
    specials: Mapping[int, str]
    """The printable names of the special ids."""
    frame: Mapping[str, Any] = {}
    """How items begin and end, where that is not just `start`: `end`, `ends`, `opening`, `before`, `after` and `roles`
    as the properties of these names; of texts also `prompt`: ids before one that is continued, and `strip`: whether
    white space around generated text is removed."""

    @property
    def length(self) -> int | None:
        """How many ids every item has; None: items differ."""
        return None

    @property
    def end(self) -> int:
        """The special id that ends a generated item."""
        return self.frame.get("end", self.start)

    @property
    def ends(self) -> frozenset[int]:
        """All special ids that end a generated item; most models have one."""
        return frozenset(self.frame.get("ends", (self.end,)))

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that follow `start` in every generated item (Whisper's language and task)."""
        return tuple(self.frame.get("opening", ()))

    @property
    def before(self) -> tuple[int, ...]:
        """The ids before an item that is only read: BERT's [CLS]."""
        return tuple(self.frame.get("before", (self.start,)))

    @property
    def after(self) -> tuple[int, ...]:
        """The ids after an item that is only read: BERT's [SEP]."""
        return tuple(self.frame.get("after", ()))

    @property
    def roles(self) -> Mapping[str, int]:
        """Special ids by their role in tasks: `mask`, `sentinel_0`, ..."""
        return self.frame.get("roles", {})

    def encode(self, item: Any) -> list[int]:
        """The ids of an item, without special ones. Raises ValueError for one that the vocabulary cannot hold."""
        raise NotImplementedError

    def restore(self, ids: Iterable[int]) -> Any:
        """The item of ids, as `encode` takes it; special ids are left out. Raises ValueError for an id outside the
        vocabulary, and where the ids are no item."""
        raise NotImplementedError

    def units(self, item: Any) -> float:
        """The size of an item in its unit: the divisor of the metric `unit.metric`."""
        raise NotImplementedError

    def content(self, item: Any, ending: str) -> bytes:
        """The content of a file that holds the item; `ending` is one of `endings`."""
        raise NotImplementedError

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """A draft as a picture, in which some ids are still the `mask`: by default its ids, as they are shown."""
        return lettered("".join("░" if id == mask else self.shown(id) for id in ids))

    @property
    def well_formed(self) -> Constraint | None:
        """Which ids may follow which, so that only whole items are generated; None: any may."""
        return None

    def shown(self, id: int) -> str:
        """How one id is shown: `<|image|>` for a special one, else the number."""
        return self.specials.get(id, str(id))

    @cached_property
    def plain(self) -> np.ndarray:
        """Whether each id stands for a part of an item, not for its frame: booleans (v,)."""
        kept = {*self.specials, *self.before, *self.after, self.start, self.end}
        return np.array([number not in kept for number in range(self.size)])

    @property
    def used(self) -> np.ndarray:
        """Whether each id stands for anything; the others are gaps in the numbering: booleans (v,)."""
        return np.ones(self.size, dtype=bool)

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        """What an answer for JSON tells of an item with these ids: of a text {"text": ...}, else {"ids": [...]}."""
        return {"ids": [id for id in ids if self.plain[id]]}

    def known(self, ids: Iterable[int]) -> list[int]:
        """The ids as a list. Raises ValueError for one outside the vocabulary."""
        found = [int(i) for i in ids]
        if wrong := [i for i in found if not 0 <= i < self.size]:
            raise ValueError(f"id {wrong[0]} is outside {self.title}, which has {self.size} ids")
        return found

    @property
    def title(self) -> str:
        """What it is called in messages: `encoding 'bytes'`."""
        return "the vocabulary"

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of all that decides which ids an item has."""
        known = sorted((field.name, repr(getattr(self, field.name))) for field in fields(self))  # in whatever order
        return hashlib.sha256(repr((type(self).__name__, known)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodedVocabulary(Vocabulary):
    """Base of the vocabularies whose first ids all stand for parts of items; behind them the id that starts and ends an
    item, then those of the roles `own`. A subclass gives `start`, which is also how many parts there are."""

    kind: ClassVar[str]
    """What an item is, as the id that starts one is shown: `image` as `<|image|>`."""
    own: tuple[str, ...] = ()
    """Roles of special ids, such as `mask`."""

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
