"""The tokenizer of a Hugging Face model directory (WordPiece, unigram, BPE), read by their `tokenizers` library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ...files.reading import DataError, shown
from ...files.writing import write_text
from .base import MOST, Encoding, TextStream, no_panic, well_formed
from .byte_pairs import byte_letters
from .coder_process import CoderProcess

SPACE = "\u2581"
"""SentencePiece's letter for a space."""
REPLACEMENT = "\ufffd"
"""What decoding gives for bytes that are not (yet) a character."""

VOCABULARY = 2**26
"""The most bytes of a file of a tokenizer (64 MiB; the largest published one has 35)."""

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""The pieces of single bytes in a vocabulary with byte fallback: `<0x0A>` for a newline."""


class DirectoryEncoding(Encoding):
    """A Hugging Face `tokenizer.json`, with the special ids that its model puts around a text.

    Decoding does not give back what such a tokenizer normalises (case, accents, white space): unlike all other
    encodings, it may lose something, since published models were trained so.
    """

    def __init__(self, text: str, start: int, frame: Mapping[str, Any]):
        """`text`: the content of the `tokenizer.json`; `start`: the id with which generated text begins; `frame`: see
        `Encoding`. Raises DataError for what is no tokenizer, or a role whose id is no special token."""
        coder = coder_of(text, "tokenizer.json")
        self.text, self.vocabulary, self.process = text, coder.get_vocab(), CoderProcess(text)
        self.name, self.start, self.frame = "directory", start, dict(frame)
        self.last: tuple[str, tuple[int, ...]] = "", ()
        added = coder.get_added_tokens_decoder()
        self.specials = {i: token.content for i, token in added.items() if token.special}
        if wrong := [name for name, id in self.roles.items() if id not in self.specials]:
            given = f"id {self.roles[wrong[0]]} is to be {wrong[0]!r}"
            raise DataError(f"tokenizer.json: {given}, and so must be one of its special tokens")

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each id by itself (a WordPiece that begins a word: with a space before it); empty for special
        ids and gaps."""
        letters = byte_letters()
        falls_back = '"ByteFallback"' in self.text or re.search(r'"byte_fallback":\s*true', self.text)  # as in Llama 2
        of_bytes, of_words = '"ByteLevel"' in self.text, '"WordPiece"' in self.text  # as in GPT-2, as in BERT
        found = [b""] * (max(self.vocabulary.values()) + 1)
        for piece, number in self.vocabulary.items():
            if number in self.specials:
                continue
            if falls_back and (byte := BYTE.fullmatch(piece)):
                found[number] = bytes.fromhex(byte[1])
            elif of_bytes:
                found[number] = bytes(letters[c] for c in piece) if set(piece) <= letters.keys() else piece.encode()
            elif of_words:
                found[number] = (piece[2:] if piece.startswith("##") else f" {piece}").encode()
            else:
                found[number] = piece.replace(SPACE, " ").encode()
        return found

    def encode(self, text):
        known, ids = self.last  # chopping asks twice, for the ids and for their number
        if known == text:
            return list(ids)
        try:
            ids = self.process.encode([well_formed(text)])[0]
            self.last = text, tuple(ids)
            return ids
        except DataError as error:
            raise DataError(f"the tokenizer cannot cut the text {shown(text)}: {error}") from None

    def encode_batch(self, texts):
        try:
            return self.process.encode([well_formed(text) for text in texts])
        except DataError:
            return [self.encode(text) for text in texts]  # one of which raises the error with the text

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        """The text of ids. Raises DataError where the tokenizer cannot make one."""
        try:
            return self.process.decode(self.known(ids), specials)
        except DataError as error:
            raise DataError(f"the tokenizer cannot decode ids: {error}") from None

    def stream(self, before=()):
        return DecodedStream(self.decode, before)

    def parts(self):
        return {"start": self.start, "frame": self.frame}

    def rules(self):
        return self.text  # merges, scores, normalisers: two tokenizers of the same pieces may cut a text differently

    def save(self, folder):
        write_text(Path(folder) / "tokenizer.json", self.text)
        super().save(folder)

    def __reduce__(self):
        return DirectoryEncoding, (self.text, self.start, self.frame)


class DecodedStream(TextStream):
    """A stream over a `decode` that may give a piece another text behind others than alone (the first piece of a text
    loses its space, bytes join to characters): all ids are decoded each time, and only what is new is given."""

    def __init__(self, decode: Callable[[Sequence[int]], str], before: Sequence[int] = ()):
        self.decode, self.ids = decode, list(before)
        self.told = len(decode(self.ids))

    def write(self, id):
        self.ids.append(int(id))
        text = self.decode(self.ids)
        return self._new(text[: len(text.rstrip(REPLACEMENT))])

    def finish(self):
        return self._new(self.decode(self.ids))

    def _new(self, text: str) -> str:
        new, self.told = text[self.told :], max(self.told, len(text))
        return new


def coder_of(text: str, where: str) -> Any:
    """The `tokenizers.Tokenizer` of a `tokenizer.json`'s content. Raises DataError for what is none, or has more than
    `MOST` ids; `where` begins its message."""
    from tokenizers import Tokenizer

    with no_panic(f"{where} is no tokenizer"):
        made = Tokenizer.from_str(text)
    check_ids(made, where)
    return made


def check_ids(coder: Any, where: str) -> None:
    """Raises DataError if a tokenizer has an id of `MOST` or more: the `tokenizers` library allocates memory for all
    ids up to the highest one. `where` begins the message."""
    highest = max(coder.get_vocab().values(), default=-1)
    if not 0 <= highest < MOST:
        raise DataError(f"{where}: its highest id is {highest:,}; possible: 0 to {MOST - 1:,}")
