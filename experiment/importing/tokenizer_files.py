"""The tokenizer of a Hugging Face directory: `tokenizer.json`, `vocab.txt`, or `vocab.json` with `merges.txt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...files.reading import DataError, read_text
from ...files.records import Record
from ...tokenizers.encoding.base import no_panic
from ...tokenizers.encoding.coder_process import CoderProcess
from ...tokenizers.encoding.directory import VOCABULARY, DirectoryEncoding, check_ids, coder_of
from ..run_folder import RunError
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
        found = CoderProcess(self.coder.to_str()).encode([""], specials=True)[0]
        kind, wanted = self.settings.tokenizer_class or "", self.settings.add_bos_token
        if wanted is None:
            wanted = True if kind.startswith("Llama") else start in found[:1]
        return [start] if wanted else []

    def encoding(self, start: int, frame: Mapping[str, Any], size: int) -> DirectoryEncoding:
        """The tokenizer as an `Encoding` with this start token and `frame`. Raises DataError where it has more than
        `size` ids, the rows of the model's table."""
        found = DirectoryEncoding(self.coder.to_str(), start, frame)
        self.check_fits(found.size, size)
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
        return Tokenizer(coder_of(read_text(file, VOCABULARY), str(file)), "tokenizer.json", settings)
    if found := next(filter(source.has, SENTENCE_PIECE), None):
        raise RunError(
            f"{source.path} has {found} but no tokenizer.json; save it once with transformers' fast tokenizer"
        )
    if source.has("vocab.txt"):
        return built(source, ["vocab.txt"], settings)
    if source.has("vocab.json"):
        if not source.has("merges.txt"):
            raise RunError(f"{source.path} has vocab.json but no merges.txt and no tokenizer.json")
        return built(source, ["vocab.json", "merges.txt"], settings)
    return None


def built(source: Directory, names: Sequence[str], settings: TokenizerSettings) -> Tokenizer:
    """The WordPiece tokenizer of a `vocab.txt`, or the byte-level BPE of a `vocab.json` with `merges.txt`. Raises
    DataError for files that are no UTF-8, that the `tokenizers` library refuses, or with too large ids."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    files = [str(source.path / name) for name in names]
    for file in files:
        read_text(file, VOCABULARY)  # says where it is no UTF-8
    with no_panic(f"{source.path}: its tokenizer's files make none"):
        if len(files) == 1:
            coder = BertWordPieceTokenizer(*files, lowercase=settings.do_lower_case)
        else:
            coder = ByteLevelBPETokenizer(*files, add_prefix_space=settings.add_prefix_space)
            special = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>")
            coder.add_special_tokens([name for name in special if coder.token_to_id(name) is not None])
    check_ids(coder, files[0])
    return Tokenizer(coder, " and ".join(names), settings)
