"""`chopmix import` of language models: GPT-2, Llama, BERT, RoBERTa, T5, each with the tokenizer of its directory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..models.bert import bert_experiment, bert_weights
from ..models.gpt2 import gpt2_experiment, gpt2_weights
from ..models.llama import llama_experiment, llama_weights
from ..models.t5 import head_is_tied, t5_experiment, t5_weights
from ..tokenizers.directory_encoding import DirectoryEncoding
from ..tokenizers.encoding_files import make_encoding
from ..tokenizers.encoding import Encoding, NumberEncoding, bpe_from_vocabulary
from .build import build_choppers, build_tasks, with_roles
from .config import Config, config_from_tree
from .import_files import read_json, read_weights, write_run
from .run import RunError

GPT2_VOCABULARY = 50257


def import_gpt2(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A GPT-2."""
    encoding = gpt2_encoding(source, described)
    experiment = gpt2_experiment(described)
    weights = gpt2_weights(read_weights(source), described.get("tie_word_embeddings", True))
    experiment |= {"data": {"card": "tiny_shakespeare"}}
    return _write(source, folder, described, experiment, encoding, weights, "GPT-2", partly)


def import_llama(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A Llama."""
    start, end = first(described.get("bos_token_id", 1)), first(described.get("eos_token_id", 2))
    frame = {"end": end, "before": [start], "after": []}
    encoding = directory_encoding(source, described["vocab_size"], start, frame)
    experiment = llama_experiment(described) | {"data": {"card": "books"}}
    weights = llama_weights(read_weights(source), described)
    return _write(source, folder, described, experiment, encoding, weights, "Llama", partly)


def import_bert(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A BERT or a RoBERTa with its masked-language-modelling head."""
    bert = described["model_type"] == "bert"
    names = ("[CLS]", "[SEP]", "[MASK]") if bert else ("<s>", "</s>", "<mask>")
    size = described["vocab_size"]
    own = (101, 102, 103) if bert else (0, 2, size - 1)
    start, end, mask = special_ids(source, names, own if size > max(own) else (0, 1, 2))
    frame = {"end": end, "before": [start], "after": [end], "roles": {"mask": mask}}
    encoding = directory_encoding(source, size, start, frame)
    experiment = bert_experiment(described) | {"data": {"card": "books"}}
    weights = bert_weights(read_weights(source), described)
    return _write(source, folder, described, experiment, encoding, weights, "BERT" if bert else "RoBERTa", partly)


def import_t5(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A T5 of version 1.0 or 1.1."""
    start = described.get("decoder_start_token_id", described.get("pad_token_id", 0))
    end = first(described.get("eos_token_id", 1))
    encoding = directory_encoding(source, described["vocab_size"], start, {"end": end, "before": [], "after": [end]})
    encoding.frame = {**encoding.frame, "roles": sentinels(encoding.specials)}
    theirs = read_weights(source)
    experiment = t5_experiment(described, head_is_tied(theirs)) | {"data": {"card": "multi30k"}}
    return _write(source, folder, described, experiment, encoding, t5_weights(theirs), "T5", partly)


def _write(
    source: Path, folder: Path, described: Mapping, experiment: dict, encoding: Encoding, weights: dict, what: str,
    partly: bool,
) -> str:  # fmt: skip
    """Write the run, with this encoding for its (first) text."""
    name, options = next(iter(experiment["inputs"].items()))
    options["encoding"] = encoding.name
    if isinstance(encoding, NumberEncoding):
        options["vocabulary"] = encoding.vocabulary
    elif encoding.vocabulary != described["vocab_size"]:
        options["pad_vocabulary_to"] = described["vocab_size"]
    training = {"steps": 1, "tokens_per_step": experiment["model"]["context"]}
    config = config_from_tree(experiment | {"training": training}, folder / "config.yaml")
    choppers = with_encoding(config, folder, name, encoding)
    return write_run(source, folder, config, choppers, build_tasks(config, choppers), weights, what, partly)


def with_encoding(config: Config, folder: Path, name: str, encoding: Encoding) -> dict:
    """The choppers of an imported run, where an input, and those that share its tokenizer, have this encoding."""
    made = build_choppers(config, folder / "assets")
    sharing = [each for each in made if config.shares.get(each, each) == name]
    return with_roles(config, made | {each: replace(made[each], fitted=encoding) for each in sharing})


# ------------------------------------------------------------------------------------------------------------ tokenizers


def first(value: int | list[int]) -> int:
    """An id, where a directory may name several."""
    return value[0] if isinstance(value, list) else value


def sentinels(specials: Mapping[int, str]) -> dict[str, int]:
    """A T5's sentinels by the names that span corruption has for them, so that it can go on."""
    found = {id: re.fullmatch(r"<extra_id_(\d+)>", text) for id, text in specials.items()}
    return {f"sentinel_{match[1]}": id for id, match in found.items() if match}


def gpt2_encoding(source: Path, described: Mapping[str, Any]) -> Encoding:
    """The encoding of a GPT-2 directory: its own `vocab.json`, else GPT-2's by name, else its ids as numbers.

    Raises RunError when the directory's vocabulary does not fit its model.
    """
    size = described["vocab_size"]
    if (source / "vocab.json").exists():
        return fitting(bpe_from_vocabulary(read_json(source, "vocab.json")), size, source / "vocab.json")
    if size >= GPT2_VOCABULARY:
        return make_encoding("gpt2", None, tuple)
    start = described.get("eos_token_id")
    return NumberEncoding(size, start if isinstance(start, int) and 0 <= start < size else None)


def directory_encoding(source: Path, size: int, start: int, frame: Mapping[str, Any]) -> Encoding:
    """A directory's own tokenizer: `tokenizer.json`, or WordPiece's `vocab.txt`, or the `vocab.json` and `merges.txt` of a
    byte-level BPE; without any of them its ids as numbers. Raises RunError when it does not fit the model."""
    if (source / "tokenizer.json").exists():
        return fitting(DirectoryEncoding(source / "tokenizer.json", start, frame), size, source / "tokenizer.json")
    for file in ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model"):
        if (source / file).exists():
            raise RunError(f"{source} has {file} but no tokenizer.json; save it once with transformers' fast tokenizer")
    if not (source / "vocab.txt").exists() and not (source / "vocab.json").exists():
        return NumberEncoding(size, start, frame)
    return fitting(saved_tokenizer(built_tokenizer(source), start, frame), size, source)


def saved_tokenizer(coder: Any, start: int, frame: Mapping[str, Any]) -> DirectoryEncoding:
    """The encoding of a tokenizer that `tokenizers` has made."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        coder.save(str(file))
        return DirectoryEncoding(file, start, frame)


def built_tokenizer(source: Path):
    """The tokenizer behind a `vocab.txt` or a `vocab.json` with `merges.txt`, as Hugging Face's `tokenizers` builds it."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

    settings = read_json(source, "tokenizer_config.json") if (source / "tokenizer_config.json").exists() else {}
    if (source / "vocab.txt").exists():
        return BertWordPieceTokenizer(str(source / "vocab.txt"), lowercase=settings.get("do_lower_case", True))
    if not (source / "merges.txt").exists():
        raise RunError(f"{source} has vocab.json but no merges.txt and no tokenizer.json")
    space = settings.get("add_prefix_space", False)
    made = ByteLevelBPETokenizer(str(source / "vocab.json"), str(source / "merges.txt"), add_prefix_space=space)
    names = ("<s>", "</s>", "<pad>", "<unk>", "<mask>")
    made.add_special_tokens([name for name in names if made.token_to_id(name) is not None])
    return made


def fitting(encoding: Encoding, size: int, file: Path) -> Encoding:
    """The encoding itself. Raises RunError when it has more ids than the model has rows."""
    if encoding.vocabulary > size:
        raise RunError(f"{file} has {encoding.vocabulary} ids, more than config.json's vocab_size ({size})")
    return encoding


def special_ids(source: Path, names: tuple[str, ...], otherwise: tuple[int, ...]) -> tuple[int, ...]:
    """The ids of special tokens by their names, where the directory has a tokenizer; else these. Raises RunError for a name
    that the tokenizer lacks."""
    if (source / "tokenizer.json").exists():
        from tokenizers import Tokenizer

        coder = Tokenizer.from_file(str(source / "tokenizer.json"))
    elif (source / "vocab.txt").exists() or (source / "vocab.json").exists():
        coder = built_tokenizer(source)
    else:
        return otherwise
    found = tuple(coder.token_to_id(name) for name in names)
    if None in found:
        raise RunError(f"{source}: its tokenizer has no {names[found.index(None)]}")
    return found
