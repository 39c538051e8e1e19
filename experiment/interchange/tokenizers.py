"""The tokenizer files of a model directory: reading them for an import, and writing them for an export."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.errors import RunError
from ...files.reading import DataError, read_text
from ...files.records import Record
from ...tokenizers.encoding.base import Encoding, no_panic
from ...tokenizers.encoding.byte_pairs import GPT2_PATTERN, byte_letters
from ...tokenizers.encoding.coder_process import CoderProcess
from ...tokenizers.encoding.directory import VOCABULARY, DirectoryEncoding, check_ids
from ...tokenizers.encoding.directory import coder_of as coder_of_json
from .directory import Directory

SENTENCE_PIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


class TokenizerSettings(Record):
    """The keys of `tokenizer_config.json` that change the ids of a text."""

    tokenizer_class: str | None = None
    add_bos_token: bool | None = None
    add_prefix_space: bool = False
    do_lower_case: bool = True


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a directory. `coder` is an object of the `tokenizers` library; `file` is the name of its file
    (or files) for messages."""

    coder: Any
    file: str
    settings: TokenizerSettings

    def id(self, name: str) -> int | None:
        """Returns the id of the token `name`; None if the tokenizer has no such token."""
        return self.coder.token_to_id(name)

    def prefix(self, start: int) -> list[int]:
        """Returns the ids that the tokenizer puts at the beginning of a text: `[start]` for a Llama, `[]` for a
        GPT-2."""
        ids = CoderProcess(self.coder.to_str()).encode([""], specials=True)[0]
        class_name, adds_start = self.settings.tokenizer_class or "", self.settings.add_bos_token
        if adds_start is None:
            adds_start = True if class_name.startswith("Llama") else start in ids[:1]
        return [start] if adds_start else []

    def encoding(self, start: int, frame: Mapping[str, Any], size: int) -> DirectoryEncoding:
        """Returns the tokenizer as an `Encoding` with the start id `start` and this `frame` (see `Encoding`). `size` is
        the number of rows of the model's embedding table. Raises DataError if the tokenizer has more ids."""
        encoding = DirectoryEncoding(self.coder.to_str(), start, frame)
        self.check_fits(encoding.size, size)
        return encoding

    def check_fits(self, ids: int, size: int) -> None:
        """Raises DataError if `ids`, a number of ids, is larger than `size`, the number of rows of the model's
        embedding table."""
        if ids > size:
            raise DataError(f"{self.file} has {ids} ids, more than config.json's vocab_size ({size})")


def tokenizer_of(source: Directory) -> Tokenizer | None:
    """Returns the tokenizer of a directory, from the first of these files that exists: `tokenizer.json`; `vocab.txt` of
    a WordPiece; `vocab.json` and `merges.txt` of a byte-level BPE. Returns None if there is none of these files. Raises
    RunError for a SentencePiece model without `tokenizer.json` and for a `vocab.json` without `merges.txt`, DataError
    for damaged files."""
    settings = source.record("tokenizer_config.json", TokenizerSettings)
    if source.has("tokenizer.json"):
        file = source.path / "tokenizer.json"
        return Tokenizer(coder_of_json(read_text(file, VOCABULARY), str(file)), "tokenizer.json", settings)
    if model := next(filter(source.has, SENTENCE_PIECE), None):
        raise RunError(
            f"{source.path} has {model} but no tokenizer.json; save it once with transformers' fast tokenizer"
        )
    if source.has("vocab.txt"):
        return from_vocabulary(source, ["vocab.txt"], settings)
    if source.has("vocab.json"):
        if not source.has("merges.txt"):
            raise RunError(f"{source.path} has vocab.json but no merges.txt and no tokenizer.json")
        return from_vocabulary(source, ["vocab.json", "merges.txt"], settings)
    return None


def from_vocabulary(source: Directory, names: Sequence[str], settings: TokenizerSettings) -> Tokenizer:
    """Returns the WordPiece tokenizer of `vocab.txt`, or the byte-level BPE of `vocab.json` and `merges.txt`. `names`
    are the names of these files. Raises DataError for files that are not UTF-8, that the `tokenizers` library rejects,
    or whose ids are too large."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    files = [str(source.path / name) for name in names]
    for file in files:
        read_text(file, VOCABULARY)  # raises DataError if it is not UTF-8
    with no_panic(f"{source.path}: its tokenizer files are invalid"):
        if len(files) == 1:
            coder = BertWordPieceTokenizer(*files, lowercase=settings.do_lower_case)
        else:
            coder = ByteLevelBPETokenizer(*files, add_prefix_space=settings.add_prefix_space)
            special = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>")
            coder.add_special_tokens([name for name in special if coder.token_to_id(name) is not None])
    check_ids(coder, files[0])
    return Tokenizer(coder, " and ".join(names), settings)


AS_GPT2 = ("gpt2", "r50k_base", "p50k_base")
"""The encodings of tiktoken that split texts by the same pattern as GPT-2."""


def tokenizer_files(encoding: Encoding, folder: Path) -> dict[str, Any]:
    """Returns the contents of `tokenizer.json` and `tokenizer_config.json` by file name. Empty for the encoding
    `numbers`, which has no tokenizer. `folder` is the input's folder of assets; for an imported run it contains a
    `tokenizer.json`. Raises RunError for an encoding that the `tokenizers` library cannot reproduce exactly.

    `split_special_tokens` makes transformers read "<|endoftext|>" in a text as plain text, as chopmix does. It is not
    set for an imported tokenizer, which keeps the settings of its authors. It is also not set for an encoding with a
    mask, since the user writes "<|mask|>" into a text to have it filled in. (`tokenizer.json` has no such setting.)"""
    from tokenizers import AddedToken

    if encoding.name == "numbers":
        return {}
    is_imported = encoding.name == "directory"
    coder = (
        coder_of_json(read_text(folder / "tokenizer.json", VOCABULARY), str(folder / "tokenizer.json"))
        if is_imported
        else coder_of(encoding)
    )
    missing = [name for id, name in sorted(encoding.specials.items()) if coder.token_to_id(name) != id]
    coder.add_special_tokens([AddedToken(name, special=True) for name in missing])
    if shifted := [name for id, name in encoding.specials.items() if coder.token_to_id(name) != id]:
        raise RunError(
            f"{folder} cannot be exported: a tokenizer.json has no gaps, so {shifted[0]} would have another id"
        )
    if not is_imported:
        coder.post_processor = framing(encoding)
    special_ids = {"bos_token": encoding.start, "eos_token": encoding.end, "mask_token": encoding.roles.get("mask")}
    settings = {name: encoding.specials[id] for name, id in special_ids.items() if id in encoding.specials}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["add_bos_token"] = bool(encoding.frame.get("prompt", [encoding.start]))
    if not is_imported and "mask" not in encoding.roles:
        settings["split_special_tokens"] = True
    return {"tokenizer.json": json.loads(coder.to_str()), "tokenizer_config.json": settings}


def coder_of(encoding: Encoding) -> Any:
    """Returns an object of the `tokenizers` library that splits texts into the same pieces and ids as the encoding. It
    adds no special ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks = {piece: id for id, piece in enumerate(encoding.pieces) if piece}
    if encoding.name == "characters":
        coder = Tokenizer(models.BPE({piece.decode(): id for piece, id in ranks.items()}, []))
        coder.decoder = decoders.Fuse()
        return coder
    letters = {byte: letter for letter, byte in byte_letters().items()}
    pieces_as_text = {piece: "".join(letters[byte] for byte in piece) for piece in ranks}
    merges = [(pieces_as_text[first], pieces_as_text[second]) for first, second in merges_of(ranks)]
    coder = Tokenizer(models.BPE({pieces_as_text[piece]: id for piece, id in ranks.items()}, merges))
    splitters = [pre_tokenizers.Split(Regex(pattern_of(encoding)), "isolated")] if encoding.name != "bytes" else []
    coder.pre_tokenizer = pre_tokenizers.Sequence([*splitters, pre_tokenizers.ByteLevel(False, use_regex=False)])
    coder.decoder = decoders.ByteLevel()
    return coder


def pattern_of(encoding: Encoding) -> str:
    """Returns the regular expression by which a byte-level BPE splits texts before pieces are merged. Raises RunError
    for an encoding of tiktoken that is not in AS_GPT2: the `tokenizers` library reads its pattern differently."""
    pattern = encoding.parts().get("pattern", GPT2_PATTERN if encoding.name in AS_GPT2 else None)
    if pattern is None:
        raise RunError(
            f"the encoding {encoding.name!r} cannot be exported; possible: bytes, characters, bpe, {', '.join(AS_GPT2)}"
        )
    return pattern


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yields all pairs of pieces whose concatenation is a piece, in the order of the rank (id) of the concatenation.
    The ranks `{b"a": 0, b"b": 1, b"ab": 2}` yield `(b"a", b"b")`."""
    lengths = sorted({len(piece) for piece in ranks})
    for piece in sorted(ranks, key=ranks.__getitem__):
        cuts = (n for n in lengths[: bisect_left(lengths, len(piece))] if n)
        pairs = [(piece[:n], piece[n:]) for n in cuts if piece[:n] in ranks and piece[n:] in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def framing(encoding: Encoding) -> Any:
    """Returns the post-processor that adds the same special ids at the beginning and the end of a text as the encoding
    does."""
    from tokenizers import processors

    before, after = ([encoding.specials[id] for id in ids] for ids in (encoding.before, encoding.after))
    ids = {name: id for id, name in encoding.specials.items()}
    special = [(name, ids[name]) for name in {*before, *after}]
    return processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=special)
