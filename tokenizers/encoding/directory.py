"""The tokenizer of a Hugging Face model directory (WordPiece, unigram, BPE), read by the `tokenizers` library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...files.reading import DataError, shown
from ...files.writing import write_text
from .base import MOST_IDS, Encoding, TextStream, no_panic, well_formed
from .byte_pairs import byte_letters
from .coder_process import CoderProcess

SPACE = "\u2581"
"""The character that SentencePiece writes for a space."""
REPLACEMENT = "\ufffd"
"""The replacement character: the result of decoding bytes that are not (yet) a character."""

VOCABULARY = 2**26
"""The largest size of a tokenizer's file in bytes (64 MiB; the largest published file has 35 MiB)."""

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""Matches the pieces of single bytes in a vocabulary with byte fallback, such as `<0x0A>` for a newline."""


class DirectoryEncoding(Encoding):
    """A Hugging Face `tokenizer.json`, with the special ids that its model expects around a text.

    This encoding, unlike all others, may lose information. The tokenizer normalises a text (case, accents, white space)
    because the published model was trained on normalised text. Decoding returns the normalised text.
    """

    def __init__(self, text: str, start: int, frame: Mapping[str, Any]):
        """`text`: the content of the `tokenizer.json`; `start`: the id with which generated text begins; `frame`: see
        `Vocabulary`. Raises DataError if `text` is not a tokenizer, if an id is `MOST_IDS` or more, or if the id of a
        role is not a special token."""
        coder = coder_of(text, "tokenizer.json")
        self.text, self.vocabulary, self.process = text, coder.get_vocab(), CoderProcess(text)
        self.name, self.start, self.frame = "directory", start, dict(frame)
        self.last: tuple[str, tuple[int, ...]] = "", ()
        added = coder.get_added_tokens_decoder()
        self.specials = {i: token.content for i, token in added.items() if token.special}
        if invalid := [name for name, id in self.roles.items() if id not in self.specials]:
            raise DataError(
                f"tokenizer.json: id {self.roles[invalid[0]]} has the role {invalid[0]!r} but is not a special token"
            )

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each id alone; empty for special ids and for unused ids. A WordPiece at the beginning of a word
        has a leading space."""
        letters = byte_letters()
        falls_back = '"ByteFallback"' in self.text or re.search(r'"byte_fallback":\s*true', self.text)  # as in Llama 2
        of_bytes, of_words = '"ByteLevel"' in self.text, '"WordPiece"' in self.text  # as in GPT-2, as in BERT
        pieces = [b""] * (max(self.vocabulary.values()) + 1)
        for piece, number in self.vocabulary.items():
            if number in self.specials:
                continue
            if falls_back and (byte := BYTE.fullmatch(piece)):
                pieces[number] = bytes.fromhex(byte[1])
            elif of_bytes:
                pieces[number] = bytes(letters[c] for c in piece) if set(piece) <= letters.keys() else piece.encode()
            elif of_words:
                pieces[number] = (piece[2:] if piece.startswith("##") else f" {piece}").encode()
            else:
                pieces[number] = piece.replace(SPACE, " ").encode()
        return pieces

    def encode(self, text):
        last_text, ids = self.last  # chopping encodes a text twice, for its ids and for their number
        if last_text == text:
            return list(ids)
        try:
            ids = self.process.encode([well_formed(text)])[0]
            self.last = text, tuple(ids)
            return ids
        except DataError as error:
            raise DataError(f"the tokenizer cannot tokenize the text {shown(text)}: {error}") from None

    def encode_batch(self, texts):
        try:
            return self.process.encode([well_formed(text) for text in texts])
        except DataError:
            return [self.encode(text) for text in texts]  # raises the error of one text, with this text in its message

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """Returns the text of ids. Raises DataError if the tokenizer cannot decode them."""
        try:
            return self.process.decode(self.known(ids), specials)
        except DataError as error:
            raise DataError(f"the tokenizer cannot decode ids: {error}") from None

    def stream(self, before=()):
        return DecodedStream(self.decode, before)

    def parts(self):
        return {"start": self.start, "frame": self.frame}

    def rules(self):
        return self.text  # merges, scores, normalisers: tokenizers with the same pieces may split a text differently

    def save(self, folder):
        write_text(Path(folder) / "tokenizer.json", self.text)
        super().save(folder)

    def __reduce__(self):
        return DirectoryEncoding, (self.text, self.start, self.frame)


class DecodedStream(TextStream):
    """A stream for encodings in which the text of an id depends on the ids before it: the first piece of a text loses
    its space, and bytes join to characters. Every call decodes all ids and returns only the new text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()):
        self.decode, self.ids = decode, list(before)
        self.returned = len(decode(self.ids))

    def write(self, id):
        self.ids.append(int(id))
        text = self.decode(self.ids)
        return self._new(text[: len(text.rstrip(REPLACEMENT))])

    def finish(self):
        return self._new(self.decode(self.ids))

    def _new(self, text: str) -> str:
        new, self.returned = text[self.returned :], max(self.returned, len(text))
        return new


def coder_of(text: str, where: str) -> Any:
    """Returns the `tokenizers.Tokenizer` of a `tokenizer.json` with the content `text`. Raises DataError if the content
    is not a tokenizer, and like `check_ids`; `where` begins the message."""
    from tokenizers import Tokenizer

    with no_panic(f"{where} is not a tokenizer"):
        coder = Tokenizer.from_str(text)
    check_ids(coder, where)
    return coder


def check_ids(coder: Any, where: str) -> None:
    """Raises DataError if a tokenizer has no ids, or an id of `MOST_IDS` or more, because the library `tokenizers`
    allocates memory for all ids up to the highest one. `where` begins the message."""
    highest = max(coder.get_vocab().values(), default=-1)
    if not 0 <= highest < MOST_IDS:
        raise DataError(f"{where}: its highest id is {highest:,}; possible: 0 to {MOST_IDS - 1:,}")
