"""Encodings, which convert text to ids and back: bytes, characters, a byte-level BPE trained on the corpus, tiktoken's
encodings, numbers.

An encoding treats a document as *data*: `<|endoftext|>` inside a document is 13 ordinary characters. Every encoding has
one special id, `start`: it precedes every document, and generation begins with it. Decoding returns exactly the text
that was encoded (except for `DirectoryEncoding`). Text that an encoding cannot represent raises UnencodableText."""

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
    """The unit in which the loss of an item is reported, so that models with different tokens can be compared."""

    metric: str
    """The name of the metric: `bits_per_byte`."""
    description: str
    """The unit, for messages: `bits per byte of text`."""
    in_bits: bool = True
    """Whether the metric is in bits, else in nats."""


BITS_PER_BYTE = Unit("bits_per_byte", "bits per byte of text")


class Vocabulary:
    """Base of all vocabularies. A subclass defines `size`, `start`, `specials`, `encode` and `restore`, and overrides
    other members if needed."""

    unit: ClassVar[Unit] = BITS_PER_BYTE
    endings: ClassVar[tuple[str, ...]] = ()
    """The suffixes of the files that an item can be written to, such as `.png`; the first is the default."""
    rate: int | None = None
    """The sampling rate in hertz, if items are sounds."""
    size: int
    """The number of ids, including special ids and gaps."""
    start: int
    """The special id that precedes every item; generation begins with it."""
    specials: Mapping[int, str]
    """The printable names of the special ids."""
    frame: Mapping[str, Any] = {}
    """The ids around an item, if they differ from the default: `end`, `ends`, `opening`, `before`, `after` and `roles`,
    as the properties of these names. For texts also `prompt`, the ids before a text that is continued, and `strip`,
    whether white space around generated text is removed."""

    @property
    def length(self) -> int | None:
        """The number of ids of every item; None if it varies."""
        return None

    @property
    def end(self) -> int:
        """The special id that ends a generated item."""
        return self.frame.get("end", self.start)

    @property
    def ends(self) -> frozenset[int]:
        """All special ids that end a generated item; most models have only one."""
        return frozenset(self.frame.get("ends", (self.end,)))

    @property
    def opening(self) -> tuple[int, ...]:
        """The ids that follow `start` in every generated item (Whisper's language and task)."""
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
        """Special ids by their role in tasks: `mask`, `sentinel_0`, ..."""
        return self.frame.get("roles", {})

    def encode(self, item: Any) -> list[int]:
        """Returns the ids of an item, without special ids. Raises ValueError if the vocabulary cannot represent it."""
        raise NotImplementedError

    def restore(self, ids: Iterable[int]) -> Any:
        """Returns the item of these ids (the inverse of `encode`), ignoring special ids. Raises ValueError if an id is
        outside the vocabulary, or if the ids do not form an item."""
        raise NotImplementedError

    def units(self, item: Any) -> float:
        """Returns the size of an item in its unit: the divisor of the metric `unit.metric`."""
        raise NotImplementedError

    def content(self, item: Any, ending: str) -> bytes:
        """Returns the content of a file that holds the item; `ending` is one of `endings`."""
        raise NotImplementedError

    def picture(self, ids: Sequence[int], mask: int) -> UInt8[Tensor, "c h w"]:
        """Returns an image of a draft, in which some ids may still be the `mask`; by default the text of its ids."""
        return lettered("".join("░" if id == mask else self.shown(id) for id in ids))

    @property
    def well_formed(self) -> Constraint | None:
        """The constraint under which only complete items are generated; None if every sequence of ids is allowed."""
        return None

    def shown(self, id: int) -> str:
        """Returns the printable form of one id: `<|image|>` for a special id, otherwise the number."""
        return self.specials.get(id, str(id))

    @cached_property
    def plain(self) -> np.ndarray:
        """Whether each id is part of an item's content, not a special or framing id: booleans (v,)."""
        excluded = {*self.specials, *self.before, *self.after, self.start, self.end}
        return np.array([number not in excluded for number in range(self.size)])

    @property
    def used(self) -> np.ndarray:
        """Whether each id is in use; the others are gaps in the numbering: booleans (v,)."""
        return np.ones(self.size, dtype=bool)

    def restored(self, ids: Sequence[int]) -> dict[str, Any]:
        """Returns the item with these ids as part of a JSON answer: {"text": ...} for a text, else {"ids": [...]}."""
        return {"ids": [id for id in ids if self.plain[id]]}

    def known(self, ids: Iterable[int]) -> list[int]:
        """Returns the ids as a list. Raises ValueError if one is outside the vocabulary."""
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
        """A sha256 (hex) of everything that determines the ids of an item."""
        settings = sorted((field.name, repr(getattr(self, field.name))) for field in fields(self))
        return hashlib.sha256(repr((type(self).__name__, settings)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class CodedVocabulary(Vocabulary):
    """Base of the vocabularies whose ids are, in this order: the codes of item parts, the id that starts and ends an
    item, and the special ids of the roles `own`. A subclass defines `start`, which is also the number of codes."""

    kind: ClassVar[str]
    """The kind of item, which names the start id: `image` gives `<|image|>`."""
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


MOST = 2**24
"""The largest number of ids of an encoding."""

START = "<|endoftext|>"
"""The printable name of the start token, as in GPT-2: it ends a document and starts the next."""


class UnencodableText(ValueError):
    """Text that an encoding cannot represent. Its `args`: the part that fails, its character position, and why."""

    def __str__(self) -> str:
        return "{} at position {} {}".format(*self.args)


@contextmanager
def no_panic(what: str) -> Iterator[None]:
    """A context that raises DataError for every error of a Rust library inside it; `what` begins the message. These
    libraries raise plain Exception, and PanicException, which is not a subclass of Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {error}") from None


def well_formed(text: str) -> str:
    """Returns the text unchanged. Raises UnencodableText if it contains a lone surrogate (half of a pair), which is not
    valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"lone surrogate U+{ord(text[error.start]):04X}"
        raise UnencodableText(what, error.start, "is not a Unicode character") from None
    return text


class Encoding(Vocabulary):
    """Base of all encodings, the vocabularies whose items are texts. A subclass defines the attributes below, `encode`,
    and `parts` if it has more to save."""

    endings = (".txt", ".smi")
    name: str
    """The name in a YAML: `bytes`, `characters`, `bpe`, `numbers`, or one of tiktoken's; `directory` if imported."""
    pieces: Sequence[bytes]
    """The bytes of each id; empty for special ids and for gaps in the numbering."""

    def prompted(self, text: str | None) -> list[int]:
        """Returns the ids of a text to continue, after the start token or the ids that a published model's tokenizer
        uses instead (possibly none). Without a text, returns the ids that begin a new document."""
        prefix = self.frame.get("prompt", (self.start,))
        return [*prefix, *self.encode(text)] if text else [*(prefix or (self.start,))]

    def restore(self, ids: Iterable[int]) -> str:
        """Returns the text of generated ids, without surrounding white space if the frame sets `strip`."""
        text = self.decode(ids)
        return text.strip() if self.frame.get("strip") else text

    def stream(self, before: Sequence[int] = ()) -> TextStream:
        """Returns a stream that converts ids to text one at a time, following the ids `before`."""
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
        """Returns the ids of several texts, computed in parallel if the encoding supports it."""
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int], specials: bool = False) -> bytes:
        """Returns the bytes of ids. Special ids are skipped, or written as their printable names with `specials`.
        Raises ValueError if an id is outside the vocabulary."""
        valid = self.known(ids)
        names = {i: self.specials.get(i, f"<|{i}|>").encode() for i in set(valid)} if specials else {}
        return b"".join(self.pieces[i] or names.get(i, b"") for i in valid)

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """Returns the text of ids, with U+FFFD for bytes that are not UTF-8; otherwise like `decode_bytes`."""
        return self.decode_bytes(ids, specials).decode(errors="replace")

    def parts(self) -> dict[str, str | int]:
        """Returns the fields of `encoding.json` other than name and fingerprint, from which the encoding is rebuilt."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """A sha256 (hex) of everything that determines the ids of a text: the vocabulary and the `rules`."""
        vocabulary, rules = self.vocabulary_fingerprint, self.rules()
        return hashlib.sha256(f"{vocabulary} {rules}".encode()).hexdigest() if rules else vocabulary

    def rules(self) -> str:
        """Returns what determines ids in addition to the vocabulary, the name and the pattern; empty if nothing."""
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
    """Converts ids to text one at a time; the bytes of an incomplete character are held back."""

    def __init__(self, encoding: Encoding):
        self.encoding, self.decoder = encoding, codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, id: int) -> str:
        """Returns the text that one more id adds; later ids never change it."""
        return self.decoder.decode(self.encoding.decode_bytes([id]))

    def finish(self) -> str:
        """Returns the rest after the last id: U+FFFD for an incomplete character."""
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
        """`symbols`: all characters. Raises ValueError if there are none, or if they are unsorted or not unique."""
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
            why = f"is not among the {len(self.symbols)} characters of this vocabulary"
            raise UnencodableText(what, position, why) from None

    def parts(self):
        return {"symbols": self.symbols}


class NumberEncoding(Encoding):
    """Ids that are the data themselves, written as `<12><7><0>`: for text that was tokenized elsewhere, or data other
    than text."""

    def __init__(self, vocabulary: int, start: int | None = None, frame: Mapping[str, Any] | None = None):
        """`vocabulary`: the number of ids, 2 to `MOST`. The id `start` (by default the last one) and the ids of the
        `frame` are special and never occur in the data. Raises ValueError if `vocabulary` is out of range."""
        if not 2 <= vocabulary <= MOST:
            raise ValueError(f"vocabulary: {vocabulary} must be from 2 (one number and the start token) to {MOST:,}")
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
    """The pieces `<0>`, `<1>`, ..., created on access because there may be millions; empty for the ids in `special`."""

    def __init__(self, count: int, special: Mapping[int, str]):
        self.count, self.special = count, special

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number):
        id = range(self.count)[number]
        return b"" if id in self.special else f"<{id}>".encode()
