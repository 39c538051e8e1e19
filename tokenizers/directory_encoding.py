"""The tokenizer of a Hugging Face model directory (WordPiece, unigram, BPE), read by their `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .encoding import Encoding, _write, byte_letters, well_formed

SPACE = "\u2581"
"""What SentencePiece writes for a space."""


class DirectoryEncoding(Encoding):
    """A `tokenizer.json`, with the special ids that its model puts around a text.

    A text that such a tokenizer normalises (lower case, accents, white space) does not come back as it was: the only
    encodings of ours that may lose something, since the published models were trained so.
    """

    def __init__(self, file: Path, start: int, frame: Mapping[str, Any]):
        """`start` begins what the model writes; `frame` has the `end` of that, what stands `before` and `after` a text that
        is only read, and perhaps `roles`."""
        from tokenizers import Tokenizer

        self.text = Path(file).read_text(encoding="utf-8")
        self.coder = Tokenizer.from_str(self.text)
        self.coder.no_padding()
        self.coder.no_truncation()
        self.coder.encode_special_tokens = True  # the text of a special token inside data is data
        self.name, self.start, self.frame = "directory", start, dict(frame)
        self.specials = {
            i: token.content for i, token in self.coder.get_added_tokens_decoder().items() if token.special
        }

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each id, as far as an id has some by itself."""
        letters, size = byte_letters(), max(self.coder.get_vocab().values()) + 1
        found = [b""] * size
        for piece, number in self.coder.get_vocab().items():
            if number in self.specials:
                continue
            if self.of_bytes:
                found[number] = bytes(letters[c] for c in piece) if set(piece) <= letters.keys() else piece.encode()
            elif self.of_words:
                found[number] = (piece[2:] if piece.startswith("##") else f" {piece}").encode()
            else:
                found[number] = piece.replace(SPACE, " ").encode()
        return found

    @cached_property
    def of_bytes(self) -> bool:
        """Whether pieces are written in byte letters, as GPT-2's are."""
        return '"ByteLevel"' in self.text

    @cached_property
    def of_words(self) -> bool:
        """Whether pieces are beginnings of words, or go on with one after `##`, as BERT's do."""
        return '"WordPiece"' in self.text

    def encode(self, text):
        return self.coder.encode(well_formed(text), add_special_tokens=False).ids

    def encode_batch(self, texts):
        found = self.coder.encode_batch([well_formed(text) for text in texts], add_special_tokens=False)
        return [each.ids for each in found]

    def decode(self, ids: Iterable[int], specials: bool = False) -> str:
        known = [int(i) for i in ids]
        if wrong := [i for i in known if not 0 <= i < self.vocabulary]:
            raise ValueError(f"id {wrong[0]} is outside encoding {self.name!r}, which has {self.vocabulary} ids")
        return self.coder.decode(known, skip_special_tokens=not specials)

    def parts(self):
        return {"start": self.start, "frame": self.frame}

    def save(self, folder):
        _write(Path(folder) / "tokenizer.json", self.text)
        super().save(folder)

    def __reduce__(self):
        return _from_text, (self.text, self.start, self.frame)


def _from_text(text: str, start: int, frame: dict) -> DirectoryEncoding:
    """The encoding again, in a process that receives it."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(text, encoding="utf-8")
        return DirectoryEncoding(file, start, frame)
