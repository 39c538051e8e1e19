"""`chopmix import` of language models: GPT-2, Llama, BERT, RoBERTa, T5, each with the tokenizer of its directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ....files.errors import RunError
from ....models.pretrained.base import Architecture
from ....models.pretrained.gpt2 import Gpt2
from ....models.pretrained.llama import Llama
from ....models.pretrained.t5 import T5
from ....tokenizers.encoding.base import Encoding, NumberEncoding
from ....tokenizers.encoding.stored import make_encoding
from ..directory import Directory, Imported
from ..tokenizers import Tokenizer, tokenizer_of

GPT2_VOCABULARY = 50257
"""The number of ids of OpenAI's GPT-2 encoding, `<|endoftext|>` included."""
NUMBERS = "numbers such as <5><7> (the directory has none)"


def first(value: int | list[int] | None, otherwise: int) -> int:
    """Returns the first id in a field of `config.json` such as `eos_token_id`. The field is an id, a list of ids or
    missing. Returns `otherwise` if the field contains no id."""
    if isinstance(value, list):
        return value[0] if value else otherwise
    return otherwise if value is None else value


def import_gpt2(source: Directory) -> Imported:
    """Returns the import of a GPT-2. If the directory has no tokenizer, the encoding is tiktoken's `gpt2`, or, with
    fewer than GPT2_VOCABULARY ids, numbers."""
    config, tokenizer = Gpt2.read(source.config), tokenizer_of(source)
    start = first(config.bos_token_id, first(config.eos_token_id, config.vocab_size - 1))
    if tokenizer is not None:
        frame = {"end": first(config.eos_token_id, start), "prompt": tokenizer.prefix(start)}
        encoding: Encoding = tokenizer.encoding(start, frame, config.vocab_size)
        label = tokenizer.file
    elif config.vocab_size >= GPT2_VOCABULARY:
        encoding = make_encoding("gpt2", None, tuple, source.trust)
        encoding.frame = {"prompt": []}
        label = "OpenAI's of GPT-2 from tiktoken (the directory has none)"
    else:
        encoding, label = (
            NumberEncoding(config.vocab_size, min(start, config.vocab_size - 1), {"prompt": []}),
            NUMBERS,
        )
    return Imported(what="GPT-2", architecture=config, encoding=encoding, tokenizer=label)


def import_llama(source: Directory) -> Imported:
    """Returns the import of a Llama. If `eos_token_id` is a list, each of its ids ends a text."""
    config, tokenizer = Llama.read(source.config), tokenizer_of(source)
    start = first(config.bos_token_id, 1)
    eos = config.eos_token_id
    ends = eos if isinstance(eos, list) and eos else [first(eos, 2)]
    prompt = tokenizer.prefix(start) if tokenizer else [start]
    frame = {"end": ends[0], "ends": ends, "before": [start], "after": [], "prompt": prompt}
    encoding, label = encoding_of(tokenizer, config.vocab_size, start, frame)
    return Imported(what="Llama", architecture=config, encoding=encoding, tokenizer=label)


def import_masked(source: Directory, kind: type[Architecture]) -> Imported:
    """Returns the import of a masked language model of the architecture `kind`, such as a BERT, with its head if the
    directory has one. Raises RunError if the tokenizer lacks a token in `Architecture.special_tokens`."""
    config, tokenizer = kind.read(source.config), tokenizer_of(source)
    size, defaults = config.vocab_size, [id for _, id in kind.special_tokens.values()]
    ids = [id % size for id in defaults] if size > max(defaults) else range(len(defaults))
    if tokenizer:
        ids = [tokenizer.id(text) for text, _ in kind.special_tokens.values()]
        if None in ids:
            missing = [*kind.special_tokens.values()][ids.index(None)][0]
            raise RunError(f"{source.path}: its tokenizer has no {missing}")
    start, end, mask = ids
    frame = {"end": end, "before": [start], "after": [end], "roles": {"mask": mask}}
    encoding, label = encoding_of(tokenizer, size, start, frame)
    return Imported(what=kind.__name__, architecture=config, encoding=encoding, tokenizer=label, headless="mlm")


def import_t5(source: Directory) -> Imported:
    """Returns the import of a T5 of version 1.0 or 1.1."""
    config, tokenizer = T5.read(source.config), tokenizer_of(source)
    start = first(config.decoder_start_token_id, first(config.pad_token_id, 0))
    end = first(config.eos_token_id, 1)
    encoding, label = encoding_of(tokenizer, config.vocab_size, start, {"end": end, "before": [], "after": [end]})
    encoding.frame = {**encoding.frame, "roles": sentinels(encoding.specials)}
    return Imported(what="T5", architecture=config.settled(source.tensors), encoding=encoding, tokenizer=label)


def encoding_of(tokenizer: Tokenizer | None, size: int, start: int, frame: Mapping[str, Any]) -> tuple[Encoding, str]:
    """Returns (encoding, file): the encoding of a directory's tokenizer, and its file name for messages. If `tokenizer`
    is None, the encoding reads and writes bare numbers (`<5><7>`). `size` is the number of rows of the model's
    embedding table; `start` and `frame`: see `Encoding`. Raises RunError for a special id outside this table."""
    invalid = [id for id in (start, frame["end"], *frame.get("roles", {}).values()) if not 0 <= id < size]
    if invalid:
        raise RunError(f"config.json: the special id {invalid[0]} is outside its vocab_size ({size})")
    if tokenizer is None:
        return NumberEncoding(size, start, frame), NUMBERS
    return tokenizer.encoding(start, frame, size), tokenizer.file


def sentinels(specials: Mapping[int, str]) -> dict[str, int]:
    """Returns the ids of a T5's sentinels by the names that span corruption uses: `{32099: "<extra_id_0>"}` becomes
    `{"sentinel_0": 32099}`. `specials` maps ids to texts."""
    matches = {id: re.fullmatch(r"<extra_id_(\d+)>", text) for id, text in specials.items()}
    return {f"sentinel_{match[1]}": id for id, match in matches.items() if match}


IMPORTERS = {
    "gpt2": import_gpt2, "llama": import_llama, "t5": import_t5,
}  # fmt: skip
"""The importer for each `model_type` in `config.json`."""
