"""`chopmix import` of language models: GPT-2, Llama, BERT, RoBERTa, T5, each with the tokenizer of its directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...models.pretrained.bert import Bert, bert_experiment, bert_weights
from ...models.pretrained.described import first
from ...models.pretrained.gpt2 import Gpt2, gpt2_experiment, gpt2_weights
from ...models.pretrained.llama import Llama, llama_experiment, llama_weights
from ...models.pretrained.t5 import T5, head_is_tied, t5_experiment, t5_weights
from ...tokenizers.encoding.base import Encoding, NumberEncoding
from ...tokenizers.encoding.directory import DirectoryEncoding, coder_of
from ...tokenizers.encoding.stored import make_encoding
from ...tokenizers.files.reading import LARGE, DataError, read_text
from ...tokenizers.files.records import Record
from ..folder.reading import RunError
from .files import Directory, Imported, check_fits

GPT2_VOCABULARY = 50257
NUMBERS = "none in the directory, so numbers: <5><7>"
SENTENCE_PIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


class TokenizerSettings(Record):
    """`tokenizer_config.json`, as far as it changes ids."""

    tokenizer_class: str | None = None
    add_bos_token: bool | None = None
    add_prefix_space: bool = False
    do_lower_case: bool = True


@dataclass(frozen=True)
class Tokenizer:
    """A directory's own tokenizer, by the library that transformers uses."""

    coder: Any
    file: str
    settings: TokenizerSettings

    def id(self, name: str) -> int | None:
        """The id of a special token; None where there is none of that name."""
        return self.coder.token_to_id(name)

    def before(self, start: int) -> list[int]:
        """What it puts before a text, if anything: for a Llama its start token, for a GPT-2 nothing."""
        found = self.coder.encode("", add_special_tokens=True).ids
        kind, wanted = self.settings.tokenizer_class or "", self.settings.add_bos_token
        if wanted is None:
            wanted = True if kind.startswith("Llama") else start in found[:1]
        return [start] if wanted else []

    def encoding(self, start: int, frame: Mapping[str, Any]) -> DirectoryEncoding:
        """The encoding of ours that it makes."""
        return DirectoryEncoding(self.coder.to_str(), start, frame)


def tokenizer_of(source: Directory) -> Tokenizer | None:
    """The directory's own tokenizer: `tokenizer.json`, else WordPiece's `vocab.txt`, else the `vocab.json` and `merges.txt` of a
    byte-level BPE; None where there is none. Raises RunError for one in a form that is not read."""
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
    """A tokenizer made of a directory's files. Raises RunError where they make none."""
    try:
        return make(source, settings)
    except DataError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise RunError(f"{source.path}: its tokenizer's files make none: {error}") from None


def word_piece(source: Directory, settings: TokenizerSettings) -> Any:
    """The tokenizer behind a `vocab.txt`."""
    from tokenizers import BertWordPieceTokenizer

    read_text(source.path / "vocab.txt", LARGE)  # says where it is no UTF-8
    return BertWordPieceTokenizer(str(source.path / "vocab.txt"), lowercase=settings.do_lower_case)


def byte_pairs(source: Directory, settings: TokenizerSettings) -> Any:
    """The tokenizer behind a `vocab.json` with `merges.txt`."""
    from tokenizers import ByteLevelBPETokenizer

    files = [str(source.path / name) for name in ("vocab.json", "merges.txt")]
    for file in files:
        read_text(file, LARGE)
    made = ByteLevelBPETokenizer(*files, add_prefix_space=settings.add_prefix_space)
    names = ("<s>", "</s>", "<pad>", "<unk>", "<mask>", "<|endoftext|>")
    made.add_special_tokens([name for name in names if made.token_to_id(name) is not None])
    return made


# --------------------------------------------------------------------------------------------------------- importers


def import_gpt2(source: Directory) -> Imported:
    """A GPT-2."""
    config, own = source.described(Gpt2), tokenizer_of(source)
    start = first(config.bos_token_id, first(config.eos_token_id, config.vocab_size - 1))
    if own is not None:
        frame = {"end": first(config.eos_token_id, start), "prompt": own.before(start)}
        encoding: Encoding = own.encoding(start, frame)
        check_fits(encoding.vocabulary, config.vocab_size, own.file)
        said = own.file
    elif config.vocab_size >= GPT2_VOCABULARY:
        encoding = make_encoding("gpt2", None, tuple)
        encoding.frame = {"prompt": []}
        said = "none in the directory, so OpenAI's of GPT-2 (tiktoken)"
    else:
        start = start if start < config.vocab_size else config.vocab_size - 1
        encoding, said = NumberEncoding(config.vocab_size, start, {"prompt": []}), NUMBERS
    return Imported(what="GPT-2", tree=gpt2_experiment(config), encoding=encoding, tokenizer=said, rows=config.vocab_size,
                    weights=lambda: gpt2_weights(source.tensors, config.tie_word_embeddings))  # fmt: skip


def import_llama(source: Directory) -> Imported:
    """A Llama."""
    config, own = source.described(Llama), tokenizer_of(source)
    start = first(config.bos_token_id, 1)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [first(config.eos_token_id, 2)]
    prompt = own.before(start) if own else [start]
    frame = {"end": ends[0], "ends": ends, "before": [start], "after": [], "prompt": prompt}
    encoding, said = own_or_numbers(own, config.vocab_size, start, frame)
    return Imported(what="Llama", tree=llama_experiment(config), encoding=encoding, tokenizer=said, rows=config.vocab_size,
                    weights=lambda: llama_weights(source.tensors, config))  # fmt: skip


def import_bert(source: Directory) -> Imported:
    """A BERT or a RoBERTa with its masked-language-modelling head."""
    config, own = source.described(Bert), tokenizer_of(source)
    bert, size = config.model_type == "bert", config.size
    names = ("[CLS]", "[SEP]", "[MASK]") if bert else ("<s>", "</s>", "<mask>")
    usual = (101, 102, 103) if bert else (0, 2, size - 1)
    found = [own.id(name) for name in names] if own else usual if size > max(usual) else (0, 1, 2)
    if None in found:
        raise RunError(f"{source.path}: its tokenizer has no {names[list(found).index(None)]}")
    start, end, mask = found
    frame = {"end": end, "before": [start], "after": [end], "roles": {"mask": mask}}
    encoding, said = own_or_numbers(own, size, start, frame)
    return Imported(what="BERT" if bert else "RoBERTa", tree=bert_experiment(config), encoding=encoding, tokenizer=said,
                    rows=size, headless="mlm", weights=lambda: bert_weights(source.tensors, config))  # fmt: skip


def import_t5(source: Directory) -> Imported:
    """A T5 of version 1.0 or 1.1."""
    config, own = source.described(T5), tokenizer_of(source)
    start = first(config.decoder_start_token_id, first(config.pad_token_id, 0))
    end = first(config.eos_token_id, 1)
    encoding, said = own_or_numbers(own, config.vocab_size, start, {"end": end, "before": [], "after": [end]})
    encoding.frame = {**encoding.frame, "roles": sentinels(encoding.specials)}
    return Imported(what="T5", tree=t5_experiment(config, head_is_tied(source.tensors)), encoding=encoding, tokenizer=said,
                    rows=config.vocab_size, weights=lambda: t5_weights(source.tensors))  # fmt: skip


def own_or_numbers(own: Tokenizer | None, size: int, start: int, frame: Mapping[str, Any]) -> tuple[Encoding, str]:
    """The encoding of a directory's tokenizer, or its ids as numbers where it has none, and which it is. Raises RunError for ids
    that the model has no rows for."""
    wrong = [id for id in (start, frame["end"], *frame.get("roles", {}).values()) if not 0 <= id < size]
    if wrong:
        raise RunError(f"config.json: the special id {wrong[0]} is outside its vocab_size ({size})")
    if own is None:
        return NumberEncoding(size, start, frame), NUMBERS
    encoding = own.encoding(start, frame)
    check_fits(encoding.vocabulary, size, own.file)
    return encoding, own.file


def sentinels(specials: Mapping[int, str]) -> dict[str, int]:
    """A T5's sentinels by the names that span corruption has for them, so that it can go on."""
    found = {id: re.fullmatch(r"<extra_id_(\d+)>", text) for id, text in specials.items()}
    return {f"sentinel_{match[1]}": id for id, match in found.items() if match}
