"""The tokenizer files of a directory, read for an import, and written by an export."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...files.reading import DataError, read_text
from ...files.records import Record
from ...tokenizers.encoding.base import Encoding, no_panic
from ...tokenizers.encoding.byte_pairs import GPT2_PATTERN, byte_letters
from ...tokenizers.encoding.coder_process import CoderProcess
from ...tokenizers.encoding.directory import VOCABULARY, DirectoryEncoding, check_ids
from ...tokenizers.encoding.directory import coder_of as coder_of_json
from ..run_folder import RunError
from .directory import Directory

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
        return Tokenizer(coder_of_json(read_text(file, VOCABULARY), str(file)), "tokenizer.json", settings)
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


AS_GPT2 = ("gpt2", "r50k_base", "p50k_base")
"""tiktoken's encodings that split texts by GPT-2's pattern."""


def tokenizer_files(encoding: Encoding, folder: Path) -> dict[str, Any]:
    """The contents of `tokenizer.json` and `tokenizer_config.json` by name; empty for numbers, which have no tokenizer.
    `folder` is the input's folder of assets, with the `tokenizer.json` of an imported run. Raises RunError for an
    encoding that the `tokenizers` library cannot reproduce exactly.

    `split_special_tokens` tells transformers that the text "<|endoftext|>" is text, as it is here. It is left to an
    imported tokenizer what its authors wanted, and a vocabulary with a mask goes without it: filling in begins with
    "<|mask|>" in a text. (A `tokenizer.json` alone cannot say it.)"""
    from tokenizers import AddedToken

    if encoding.name == "numbers":
        return {}
    read = encoding.name == "directory"
    coder = (
        coder_of_json(read_text(folder / "tokenizer.json", VOCABULARY), str(folder / "tokenizer.json"))
        if read
        else coder_of(encoding)
    )
    lacking = [name for id, name in sorted(encoding.specials.items()) if coder.token_to_id(name) != id]
    coder.add_special_tokens([AddedToken(name, special=True) for name in lacking])
    if wrong := [name for id, name in encoding.specials.items() if coder.token_to_id(name) != id]:
        raise RunError(
            f"{folder} cannot be exported: {wrong[0]} would have another id in a tokenizer.json, which has no gaps"
        )
    if not read:
        coder.post_processor = framing(encoding)
    names = {"bos_token": encoding.start, "eos_token": encoding.end, "mask_token": encoding.roles.get("mask")}
    settings = {name: encoding.specials[id] for name, id in names.items() if id in encoding.specials}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings["add_bos_token"] = bool(encoding.frame.get("prompt", [encoding.start]))
    if not read and "mask" not in encoding.roles:
        settings["split_special_tokens"] = True
    return {"tokenizer.json": json.loads(coder.to_str()), "tokenizer_config.json": settings}


def coder_of(encoding: Encoding) -> Any:
    """An object of the `tokenizers` library that splits texts into the same pieces and ids, without special ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    ranks = {piece: id for id, piece in enumerate(encoding.pieces) if piece}
    if encoding.name == "characters":
        found = Tokenizer(models.BPE({piece.decode(): id for piece, id in ranks.items()}, []))
        found.decoder = decoders.Fuse()
        return found
    letters = {byte: letter for letter, byte in byte_letters().items()}
    written = {piece: "".join(letters[byte] for byte in piece) for piece in ranks}
    merges = [(written[first], written[second]) for first, second in merges_of(ranks)]
    found = Tokenizer(models.BPE({written[piece]: id for piece, id in ranks.items()}, merges))
    cut = [pre_tokenizers.Split(Regex(pattern_of(encoding)), "isolated")] if encoding.name != "bytes" else []
    found.pre_tokenizer = pre_tokenizers.Sequence([*cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    found.decoder = decoders.ByteLevel()
    return found


def pattern_of(encoding: Encoding) -> str:
    """The regular expression by which a byte-level BPE splits texts before merging. Raises RunError for the encodings
    of tiktoken whose pattern means something else to the `tokenizers` library."""
    pattern = encoding.parts().get("pattern", GPT2_PATTERN if encoding.name in AS_GPT2 else None)
    if pattern is None:
        raise RunError(
            f"the encoding {encoding.name!r} cannot be exported; possible: bytes, characters, bpe, {', '.join(AS_GPT2)}"
        )
    return pattern


def merges_of(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every pair of pieces that join to a piece, in the order of that piece's rank: `{b"a": 0, b"b": 1, b"ab": 2}`
    gives `(b"a", b"b")`."""
    lengths = sorted({len(piece) for piece in ranks})
    for piece in sorted(ranks, key=ranks.__getitem__):
        cuts = (n for n in lengths[: bisect_left(lengths, len(piece))] if n)
        pairs = [(piece[:n], piece[n:]) for n in cuts if piece[:n] in ranks and piece[n:] in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def framing(encoding: Encoding) -> Any:
    """The post-processor that puts the same special ids before and after a text as the encoding does."""
    from tokenizers import processors

    before, after = ([encoding.specials[id] for id in ids] for ids in (encoding.before, encoding.after))
    ids = {name: id for id, name in encoding.specials.items()}
    special = [(name, ids[name]) for name in {*before, *after}]
    return processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=special)
