"""`chopmix import` of a Whisper directory: the weights, the tokenizer, and the special tokens that it is asked with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models.languages import code_of
from ..models.whisper import whisper_experiment, whisper_weights
from .build import build_tasks
from .config import config_from_tree
from .import_files import read_json, read_weights, write_run
from .import_text import built_tokenizer, fitting, saved_tokenizer, with_encoding
from .run import RunError

NAMES = {
    "start": ("<|startoftranscript|>",), "end": ("<|endoftext|>",), "transcribe": ("<|transcribe|>",),
    "translate": ("<|translate|>",), "previous": ("<|startofprev|>",), "no_speech": ("<|nospeech|>", "<|nocaptions|>"),
    "no_timestamps": ("<|notimestamps|>",),
}  # fmt: skip
MULTILINGUAL = 51865
"""The vocabulary of models that know more than English has at least so many ids."""


def import_whisper(source: Path, folder: Path, described: Mapping[str, Any], partly: bool = False) -> str:
    """A Whisper of any size. Raises RunError for a directory without its tokenizer."""
    experiment = whisper_experiment(described)
    size = described["vocab_size"]
    coder = _coder(source)
    protocol = protocol_of(source, coder, size)
    opening = []
    if protocol["languages"]:
        language = protocol["languages"].get("en", next(iter(protocol["languages"].values())))
        opening = [language, protocol["transcribe"]]
    frame = {"end": protocol["end"], "opening": [*opening, protocol["no_timestamps"]], "whisper": protocol}
    encoding = fitting(saved_tokenizer(coder, protocol["start"], frame), size, source)
    experiment["inputs"]["text"]["encoding"] = encoding.name
    if encoding.vocabulary != size:
        experiment["inputs"]["text"]["pad_vocabulary_to"] = size
    tree = experiment | {
        "data": {"card": "fsdd", "columns": {"text": "label"}},
        "training": {"steps": 1, "samples_per_step": 8},
    }
    config = config_from_tree(tree, folder / "config.yaml")
    choppers = with_encoding(config, folder, "text", encoding)
    weights = whisper_weights(read_weights(source))
    return write_run(source, folder, config, choppers, build_tasks(config, choppers), weights, "Whisper", partly)


def _coder(source: Path):
    """The directory's tokenizer, with the tokens of `added_tokens.json` where it comes in parts."""
    from tokenizers import AddedToken, Tokenizer

    if (source / "tokenizer.json").exists():
        return Tokenizer.from_file(str(source / "tokenizer.json"))
    if not (source / "vocab.json").exists():
        raise RunError(
            f"{source} has no tokenizer.json (nor vocab.json and merges.txt); Whisper is asked through its tokens"
        )
    coder = built_tokenizer(source)
    added = read_json(source, "added_tokens.json") if (source / "added_tokens.json").exists() else {}
    coder.add_special_tokens([AddedToken(name, special=True) for name, _ in sorted(added.items(), key=lambda e: e[1])])
    for name, id in added.items():
        if coder.token_to_id(name) != id:
            raise RunError(
                f"{source}: {name} is id {id} in added_tokens.json, but {coder.token_to_id(name)} behind vocab.json: its ids "
                "have gaps; save the tokenizer once with transformers' fast tokenizer (tokenizer.json)"
            )
    return coder


def protocol_of(source: Path, coder: Any, size: int) -> dict[str, Any]:
    """Whisper's special ids, from the tokenizer, and what may not be said, from `generation_config.json` or `config.json`.

    Raises RunError naming a token that the tokenizer lacks.
    """
    found: dict[str, Any] = {}
    for role, names in NAMES.items():
        ids = [coder.token_to_id(name) for name in names]
        known = [id for id in ids if id is not None]
        if not known:
            raise RunError(f"{source}: its tokenizer has no {names[0]}")
        found[role] = known[0]
    zero = coder.token_to_id("<|0.00|>")
    found["timestamps"] = found["no_timestamps"] + 1 if zero is None else zero
    older = read_json(source, "config.json")  # where these stood before there was a file for them
    settings = {name: older[name] for name in ("suppress_tokens", "begin_suppress_tokens") if older.get(name)}
    if (source / "generation_config.json").exists():
        settings |= read_json(source, "generation_config.json")
    languages = {}
    if settings.get("is_multilingual", size >= MULTILINGUAL):
        named = settings.get("lang_to_id") or _between(coder, found["start"], found["translate"])
        languages = {code_of(name): id for name, id in named.items()}
    tuned = code_of(settings.get("language") or "")
    found |= {
        "languages": languages, "suppressed": settings.get("suppress_tokens") or [],
        "suppressed_first": settings.get("begin_suppress_tokens") or [],
        "latest_start": settings.get("max_initial_timestamp_index", 50), "language": tuned if tuned in languages else None,
    }  # fmt: skip
    return found


def _between(coder: Any, start: int, end: int) -> dict[str, int]:
    """The tokens between two ids: the languages stand between the start and the tasks."""
    return {coder.id_to_token(id): id for id in range(start + 1, end)}
