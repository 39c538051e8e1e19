"""Text to ids and back: bytes, characters, a byte-level BPE trained on the corpus, any of tiktoken's encodings, numbers.

An encoding turns *data* into ids: text such as `<|endoftext|>` inside a document is twelve or so ordinary characters.
The one special id that everybody needs is `start`: it stands before every document and generation begins with it.
Every encoding gives back exactly the text it was given; what it cannot hold it refuses, saying where.
"""

from __future__ import annotations

import base64
import codecs
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import tiktoken

from .files import write_text

MOST = 2**24
"""Ids that an encoding has at most."""
START = "<|endoftext|>"
"""The printable name of the start token, as in GPT-2: it ends a document and starts the next."""

# GPT-4's idea (words take the character before them, digits in threes), but all that follows a line (its newlines, and
# the indentation of the next but for the one space that joins the next word) is one piece, with the punctuation before:
# ":\n           " + " return". At 4,096 ids that saves 6 % of the tokens of Python source and 1 % of those of novels.
# The possessive marks (*+, ++) keep the time linear in long runs of white space.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+(?:[^\S\r\n]*+[\r\n]++(?=\S)|[^\S\r\n]*+[\r\n]\s*(?!\S))?"
    r"|[^\S\r\n]*+[\r\n]++(?=\S)"
    r"|\s+(?!\S)|\s+"
)
# GPT-2's own pattern in tiktoken's form, for vocabularies that come as a `vocab.json`.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
# A run of white space is cut into stretches of LONGEST: a million characters overflow the stack of tiktoken's matcher.
LONGEST = 2**17
LONG_SPACE = re.compile(rf"\s(?<!\s\s)\s{{{LONGEST},}}")  # tried only where a run begins: the time stays linear


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
    """How a published model wants its texts to begin and end, where that is not just `start`: `end`, `opening`, `before`,
    `after`, `prompt`, `roles`; `strip`: whether what it writes begins with a space that is none."""

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
        """The ids of a text that is to be continued. Our own models read a start token before every document; a published one
        what its tokenizer puts there, which may be nothing. Without a text: a new document."""
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
    """Ids that are the data themselves, written `<12><7><0>`: for text that was tokenized elsewhere, or never was text."""

    def __init__(self, vocabulary: int, start: int | None = None, frame: Mapping[str, Any] | None = None):
        """`vocabulary` ids in all, of which `start` (by default the last) starts a document and is never data, as are those
        of the `frame`."""
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


class BytePairs(Encoding):
    """What the encodings share whose work tiktoken does."""

    def __init__(self, coder: tiktoken.Encoding):
        self.name, self.start, self._coder = coder.name, coder.eot_token, coder
        self.specials = {coder.encode_single_token(name): name for name in sorted(coder.special_tokens_set)}
        ids = {coder.encode_single_token(piece): piece for piece in coder.token_byte_values()}
        self.pieces = [ids.get(i, b"") for i in range(coder.n_vocab)]

    def encode(self, text):
        well_formed(text)
        runs = (range(space.start() + LONGEST, space.end(), LONGEST) for space in LONG_SPACE.finditer(text))
        ends = list(chain.from_iterable(runs))
        parts = (text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True))
        return list(chain.from_iterable(map(self._coder.encode_ordinary, parts)))

    def encode_batch(self, texts):
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.encode, texts))


class Extended(Encoding):
    """Another encoding with special ids of these names behind its own: the mask of a BERT, the sentinels of a T5."""

    def __init__(self, base: Encoding, own: Sequence[str]):
        self.base, self.own = base, tuple(own)
        self.name, self.start, first = base.name, base.start, base.vocabulary
        roles = {**base.roles, **{name: first + number for number, name in enumerate(own)}}
        self.frame = {**base.frame, "end": base.end, "before": base.before, "after": base.after, "roles": roles}
        self.specials = base.specials | {first + number: f"<|{name}|>" for number, name in enumerate(own)}
        self.pieces = [*base.pieces, *[b""] * len(own)]

    def encode(self, text):
        return self.base.encode(text)

    def decode(self, ids, specials=False):
        if specials:
            return super().decode(ids, specials)
        return self.base.decode([i for i in ids if i < self.base.vocabulary])

    def encode_batch(self, texts):
        return self.base.encode_batch(texts)

    def stream(self, before=()):
        return self.base.stream(before)

    def parts(self):
        return {**self.base.parts(), "own": list(self.own)}

    def save(self, folder):
        self.base.save(folder)
        super().save(folder)


class TiktokenEncoding(BytePairs):
    """One of tiktoken's public encodings: gpt2, r50k_base, cl100k_base, o200k_base, ..."""

    def __init__(self, name: str):
        """Read the ranks: from TIKTOKEN_CACHE_DIR (which is made `$CHOPMIX_DATA/bpe` where unset), else by download.
        Raises ValueError for an unknown name, and when the ranks cannot be had, saying which files to put where."""
        known_name(name)
        folder = Path(os.environ.get("CHOPMIX_DATA") or "missing", "bpe")
        if "TIKTOKEN_CACHE_DIR" not in os.environ and folder.is_dir():
            os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
        try:
            coder = tiktoken.get_encoding(name)
        except (OSError, ValueError) as error:  # a failed download is an OSError, a wrong sha256 a ValueError
            files = " and ".join(f"{address} as {file}" for file, address in rank_files(name).items())
            where = "the folder named by TIKTOKEN_CACHE_DIR, by default the folder bpe in CHOPMIX_DATA"
            reason = f"({type(error).__name__})"
            raise ValueError(f"the ranks of {name!r} are not at hand {reason}; put {files} in {where}") from error
        super().__init__(coder)


def known_name(name: str) -> None:
    """Raises ValueError for the name of no encoding, saying which there are. (`directory`: an imported model's own.)"""
    possible = ["bytes", "characters", "bpe", "numbers", *sorted(tiktoken.list_encoding_names())]
    if name not in (*possible, "directory"):
        near = difflib.get_close_matches(name, possible, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no encoding named {name!r}; possible: {', '.join(possible)}{hint}")


def rank_files(name: str) -> dict[str, str]:
    """The addresses of a public encoding's ranks, by their file names (sha1 sums) in tiktoken's cache."""
    store = "https://openaipublic.blob.core.windows.net/"
    base = {"p50k_edit": "p50k_base", "o200k_harmony": "o200k_base"}.get(name, name)
    gpt2 = ["gpt-2/encodings/main/vocab.bpe", "gpt-2/encodings/main/encoder.json"]
    paths = gpt2 if name == "gpt2" else [f"encodings/{base}.tiktoken"]
    return {hashlib.sha1((store + path).encode()).hexdigest(): store + path for path in paths}


class BpeEncoding(BytePairs):
    """A byte-level BPE of the user's own corpus; see `train_bpe`."""

    def __init__(self, ranks: dict[bytes, int], pattern: str = PATTERN):
        """`ranks` number all 256 bytes and the merged pieces from 0 without a gap; the next id is the start token."""
        if sorted(ranks.values()) != list(range(len(ranks))) or any(bytes([b]) not in ranks for b in range(256)):
            raise ValueError("the ranks of a byte-level BPE number all 256 bytes and the merged pieces without a gap")
        self.ranks, self.pattern = ranks, pattern
        special = {START: len(ranks)}
        super().__init__(tiktoken.Encoding("bpe", pat_str=pattern, mergeable_ranks=ranks, special_tokens=special))

    def parts(self):
        return {"pattern": self.pattern}

    def save(self, folder):
        lines = (base64.b64encode(piece).decode() + f" {rank}\n" for piece, rank in self.ranks.items())
        write_text(Path(folder) / "ranks.tiktoken", "".join(lines))
        super().save(folder)


def byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in vocabularies of GPT-2's kind: itself, or from chr(256) on if unprintable."""
    shown = [b for b in range(256) if chr(b).isprintable() and b != 32]
    hidden = sorted(set(range(256)) - set(shown))
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


def bpe_from_vocabulary(vocabulary: dict[str, int]) -> BpeEncoding:
    """GPT-2's byte-level BPE from a `vocab.json`: pieces in byte letters, ids in the order of the merges.

    Raises ValueError when the ids are not all bytes and merges without a gap, with `<|endoftext|>` last.
    """
    byte = byte_letters()
    if vocabulary.get(START) != len(vocabulary) - 1:
        raise ValueError(f"vocab.json: {START} is not its last id")
    try:
        ranks = {bytes(byte[c] for c in piece): i for piece, i in vocabulary.items() if piece != START}
    except KeyError as error:
        raise ValueError(f"vocab.json: {error} stands for no byte") from None
    return BpeEncoding(ranks, GPT2_PATTERN)


def train_bpe(texts: Iterable[str], vocabulary: int) -> BpeEncoding:
    """Learn a byte-level BPE with Hugging Face's trainer: every byte by its value, then the merges as they came.
    `vocabulary` counts all ids: bytes, merges, the start token. Raises ValueError where the corpus cannot fill it."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if vocabulary < 257:
        raise ValueError(f"vocabulary: {vocabulary} is too small: 256 bytes and the start token make 257")
    learner, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    cut, as_bytes = pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    learner.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 1, initial_alphabet=alphabet, show_progress=False)
    short = (text[i : i + 2**16] for text in texts for i in range(0, len(text), 2**16))  # long ones cost much memory
    learner.train_from_iterator(short, trainer)
    byte, learned = byte_letters(), sorted(learner.get_vocab().items(), key=lambda item: item[1])
    merged = [bytes(byte[letter] for letter in piece) for piece, _ in learned if len(piece) > 1]
    found = BpeEncoding({piece: rank for rank, piece in enumerate([bytes([b]) for b in range(256)] + merged)})
    if found.vocabulary < vocabulary:
        raise ValueError(f"vocabulary: {vocabulary} ids are too many: this corpus gives {found.vocabulary}")
    return found
