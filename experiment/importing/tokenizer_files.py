"""The tokenizer of a Hugging Face directory: `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...tokenizers.encoding.directory import DirectoryEncoding, coder_of
from ...tokenizers.files.reading import LARGE, DataError, read_text
from ...tokenizers.files.records import Record
from ..folder.reading import RunError
from .files import Directory

SENTENCE_PIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


class TokenizerSettings(Record):
    """The keys of `tokenizer_config.json` that change ids."""

    tokenizer_class: str | None = None
    add_bos_token: bool | None = None
    add_prefix_space: bool = False
    do_lower_case: bool = True


@dataclass(frozen=True)
class Tokenizer:
    """A directory's own tokenizer. `coder` is an object of the `tokenizers` library, `file` names its files for
    messages."""

    coder: Any
    file: str
    settings: TokenizerSettings

    def id(self, name: str) -> int | None:
        """The id of a special token; None where there is none of that name."""
        return self.coder.token_to_id(name)

    def before(self, start: int) -> list[int]:
        """The ids that it puts before a text: `[start]` for a Llama, `[]` for a GPT-2."""
        found = self.coder.encode("", add_special_tokens=True).ids
        kind, wanted = self.settings.tokenizer_class or "", self.settings.add_bos_token
        if wanted is None:
            wanted = True if kind.startswith("Llama") else start in found[:1]
        return [start] if wanted else []

    def encoding(self, start: int, frame: Mapping[str, Any], size: int) -> DirectoryEncoding:
        """The tokenizer as an `Encoding` with this start token and `frame`. Raises DataError where it has more than
        `size` ids, the rows of the model's table."""
        found = DirectoryEncoding(self.coder.to_str(), start, frame)
        self.check_fits(found.vocabulary, size)
        return found

    def check_fits(self, ids: int, size: int) -> None:
        """Raises DataError for more `ids` than `size`, the rows of the model's table."""
        if ids > size:
            raise DataError(f"{self.file} has {ids} ids, more than config.json's vocab_size ({size})")


def tokenizer_of(source: Directory) -> Tokenizer | None:
    """The directory's own tokenizer: `tokenizer.json`, else WordPiece's `vocab.txt`, else the `vocab.json` and
    `merges.txt` of a byte-level BPE; None where there is none. Raises RunError for a SentencePiece model alone and for
    a `vocab.json` without `merges.txt`, DataError for damaged files."""
    settings = source.record("tokenizer_config.json", TokenizerSettings)
    if source.has("tokenizer.json"):
        file = source.path / "tokenizer.json"
        return Tokenizer(coder_of(read_text(file, LARGE), str(file)), "tokenizer.json", settings)
    for file in SENTENCE_PIECE:
        if source.has(file):
            raise RunError(
                f"{source.path} has {file} but no tokenizer.json; save it once with transformers' fast tokenizer"
            )
    if source.has("vocab.txt"):
        return Tokenizer(built(source, word_piece, settings), "vocab.txt", settings)
    if source.has("vocab.json"):
        if not source.has("merges.txt"):
            raise RunError(f"{source.path} has vocab.json but no merges.txt and no tokenizer.json")
        return Tokenizer(built(source, byte_pairs, settings), "vocab.json and merges.txt", settings)
    return None


def built(source: Directory, make: Callable[[Directory, TokenizerSettings], Any], settings: TokenizerSettings) -> Any:
    """The result of `make`. Raises RunError where the `tokenizers` library refuses the files."""
    try:
        return make(source, settings)
    except DataError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise RunError(f"{source.path}: its tokenizer's files make none: {error}") from None


def word_piece(source: Directory, settings: TokenizerSettings) -> Any:
    """The WordPiece tokenizer of a `vocab.txt`."""
    from tokenizers import BertWordPieceTokenizer

    read_text(source.path / "vocab.txt", LARGE)  # says where it is no UTF-8
    return BertWordPieceTokenizer(str(source.path / "vocab.txt"), lowercase=settings.do_lower_case)


def byte_pairs(source: Directory, settings: TokenizerSettings) -> Any:
    """The byte-level BPE tokenizer of a `vocab.json` with `merges.txt`."""
    from tokenizers import ByteLevelBPETokenizer

    files = [str(source.path / name) for name in ("vocab.json", "merges.txt")]
    for file in files:
        read_text(file, LARGE)
    made = ByteLevelBPETokenizer(*files, add_prefix_space=settings.add_prefix_space)
    names = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>")
    made.add_special_tokens([name for name in names if made.token_to_id(name) is not None])
    return made
