"""`chopmix import` of language models: GPT-2, Llama, BERT, RoBERTa, T5, each with the tokenizer of its directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ....models.pretrained.bert import Bert, Roberta
from ....models.pretrained.gpt2 import Gpt2
from ....models.pretrained.llama import Llama
from ....models.pretrained.t5 import T5
from ....tokenizers.encoding.base import Encoding, NumberEncoding
from ....tokenizers.encoding.stored import make_encoding
from ...run_folder import RunError
from ..directory import Directory, Imported
from ..tokenizers import Tokenizer, tokenizer_of

GPT2_VOCABULARY = 50257
"""Ids of OpenAI's GPT-2 encoding, `<|endoftext|>` included."""
NUMBERS = "none in the directory, so numbers: <5><7>"


def first(value: int | list[int] | None, otherwise: int) -> int:
    """The first of the ids that a directory names (one, several or none), else `otherwise`."""
    if isinstance(value, list):
        return value[0] if value else otherwise
    return otherwise if value is None else value


def import_gpt2(source: Directory) -> Imported:
    """A GPT-2. Without a tokenizer of its own, and with at least GPT2_VOCABULARY ids, it gets tiktoken's `gpt2`."""
    config, own = Gpt2.read(source.config), tokenizer_of(source)
    start = first(config.bos_token_id, first(config.eos_token_id, config.vocab_size - 1))
    if own is not None:
        frame = {"end": first(config.eos_token_id, start), "prompt": own.before(start)}
        encoding: Encoding = own.encoding(start, frame, config.vocab_size)
        said = own.file
    elif config.vocab_size >= GPT2_VOCABULARY:
        encoding = make_encoding("gpt2", None, tuple, source.trust)
        encoding.frame = {"prompt": []}
        said = "none in the directory, so OpenAI's of GPT-2 (tiktoken)"
    else:
        encoding, said = NumberEncoding(config.vocab_size, min(start, config.vocab_size - 1), {"prompt": []}), NUMBERS
    return Imported(what="GPT-2", architecture=config, encoding=encoding, tokenizer=said)


def import_llama(source: Directory) -> Imported:
    """A Llama. Its `eos_token_id` may be a list: any of these ids ends a text."""
    config, own = Llama.read(source.config), tokenizer_of(source)
    start = first(config.bos_token_id, 1)
    given = config.eos_token_id
    ends = given if isinstance(given, list) and given else [first(given, 2)]
    prompt = own.before(start) if own else [start]
    frame = {"end": ends[0], "ends": ends, "before": [start], "after": [], "prompt": prompt}
    encoding, said = own_or_numbers(own, config.vocab_size, start, frame)
    return Imported(what="Llama", architecture=config, encoding=encoding, tokenizer=said)


def import_bert(source: Directory) -> Imported:
    """A BERT or a RoBERTa, with its masked-language-modelling head where it has one. Raises RunError where its
    tokenizer lacks one of the special tokens `[CLS]`, `[SEP]`, `[MASK]` (of a RoBERTa `<s>`, `</s>`, `<mask>`)."""
    bert, own = source.config["model_type"] == "bert", tokenizer_of(source)
    config = (Bert if bert else Roberta).read(source.config)
    size = config.vocab_size
    names = ("[CLS]", "[SEP]", "[MASK]") if bert else ("<s>", "</s>", "<mask>")
    usual = (101, 102, 103) if bert else (0, 2, size - 1)
    found = [own.id(name) for name in names] if own else usual if size > max(usual) else (0, 1, 2)
    if None in found:
        raise RunError(f"{source.path}: its tokenizer has no {names[list(found).index(None)]}")
    start, end, mask = found
    frame = {"end": end, "before": [start], "after": [end], "roles": {"mask": mask}}
    encoding, said = own_or_numbers(own, size, start, frame)
    what = "BERT" if bert else "RoBERTa"
    return Imported(what=what, architecture=config, encoding=encoding, tokenizer=said, headless="mlm")


def import_t5(source: Directory) -> Imported:
    """A T5 of version 1.0 or 1.1."""
    config, own = T5.read(source.config), tokenizer_of(source)
    start = first(config.decoder_start_token_id, first(config.pad_token_id, 0))
    end = first(config.eos_token_id, 1)
    encoding, said = own_or_numbers(own, config.vocab_size, start, {"end": end, "before": [], "after": [end]})
    encoding.frame = {**encoding.frame, "roles": sentinels(encoding.specials)}
    return Imported(what="T5", architecture=config.settled(source.tensors), encoding=encoding, tokenizer=said)


def own_or_numbers(own: Tokenizer | None, size: int, start: int, frame: Mapping[str, Any]) -> tuple[Encoding, str]:
    """The encoding of a directory's tokenizer, else one of bare numbers (`<5><7>`), and its file for messages. `size`:
    rows of the model's table of embeddings; `start` and `frame`: see `Encoding`. Raises RunError for a special id
    outside the table."""
    wrong = [id for id in (start, frame["end"], *frame.get("roles", {}).values()) if not 0 <= id < size]
    if wrong:
        raise RunError(f"config.json: the special id {wrong[0]} is outside its vocab_size ({size})")
    if own is None:
        return NumberEncoding(size, start, frame), NUMBERS
    return own.encoding(start, frame, size), own.file


def sentinels(specials: Mapping[int, str]) -> dict[str, int]:
    """The sentinels of a T5 by the roles that span corruption asks for: `{32099: "<extra_id_0>"}` gives
    `{"sentinel_0": 32099}`."""
    found = {id: re.fullmatch(r"<extra_id_(\d+)>", text) for id, text in specials.items()}
    return {f"sentinel_{match[1]}": id for id, match in found.items() if match}


IMPORTERS = {
    "gpt2": import_gpt2, "llama": import_llama, "bert": import_bert, "roberta": import_bert, "t5": import_t5,
}  # fmt: skip
"""The importers by the `model_type` of `config.json`."""
