"""`chopmix import` of a Whisper directory: weights, tokenizer, and the special ids of the decoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from ....experiment.interchange.directory import Directory, Imported
from ....experiment.interchange.tokenizers import Tokenizer, tokenizer_of
from ....files.errors import RunError
from ....files.records import read_record
from ....models.pretrained.base import Id, Published
from ..decoding import Protocol, code_of
from ..pretrained.whisper import Whisper

NAMES = {
    "start": ("<|startoftranscript|>",), "end": ("<|endoftext|>",), "transcribe": ("<|transcribe|>",),
    "translate": ("<|translate|>",), "previous": ("<|startofprev|>",), "no_speech": ("<|nospeech|>", "<|nocaptions|>"),
    "no_timestamps": ("<|notimestamps|>",),
}  # fmt: skip
"""The names of the special tokens, by field of `Protocol`. If there are several names, the first name that the
tokenizer contains is used."""
MODEL = "<|startoflm|>"
"""A special token of the training that is never generated. Some tokenizers do not contain this token."""
MULTILINGUAL = 51865
"""The minimum vocabulary size of multilingual models. Models that support only English have one id less."""
Added = RootModel[dict[str, Id]]
"""The content of `added_tokens.json`: ids by token."""


class Generation(Published):
    """The keys of `generation_config.json` that `Protocol` uses."""

    suppress_tokens: list[Id] | None = None
    begin_suppress_tokens: list[Id] | None = None
    is_multilingual: bool | None = None
    lang_to_id: dict[str, Id] | None = None
    language: str | None = None
    max_initial_timestamp_index: Annotated[int, Field(ge=0, le=1500)] | None = 50


def import_whisper(source: Directory) -> Imported:
    """Returns the imported model of a Whisper directory of any model size. By default a generated text begins with the
    start, `<|en|>` (without English: the first language) and `<|transcribe|>`, and `<|notimestamps|>`. For a model that
    supports only English, the language and `<|transcribe|>` are left out. Raises RunError if the directory has no
    tokenizer."""
    config, tokenizer = Whisper.read(source.config), with_added(source)
    tokenizer.check_fits(tokenizer.coder.get_vocab_size(), config.vocab_size)
    protocol = protocol_of(source, tokenizer, config)
    opening = []
    if protocol.languages:
        opening = [protocol.languages.get("en", next(iter(protocol.languages.values()))), protocol.transcribe]
    opening.append(protocol.no_timestamps)
    frame = {"end": protocol.end, "opening": opening, "strip": True, "whisper": protocol.model_dump()}
    encoding = tokenizer.encoding(protocol.start, frame, config.vocab_size)
    return Imported(what="Whisper", architecture=config, encoding=encoding, tokenizer=tokenizer.file)


def with_added(source: Directory) -> Tokenizer:
    """Returns the tokenizer of the directory. If the tokenizer consists of `vocab.json` and `merges.txt`, the tokens of
    `added_tokens.json` are added. Raises RunError if there is no tokenizer, or if an added token would get another id
    than in `added_tokens.json`."""
    from tokenizers import AddedToken

    tokenizer = tokenizer_of(source)
    if tokenizer is None:
        raise RunError(
            f"{source.path} has no tokenizer.json (or vocab.json and merges.txt); Whisper needs its special tokens"
        )
    if tokenizer.file == "tokenizer.json" or not source.has("added_tokens.json"):
        return tokenizer
    added = read_record(source.path / "added_tokens.json", Added).root
    tokenizer.coder.add_special_tokens(
        [AddedToken(name, special=True) for name in sorted(added, key=added.__getitem__)]
    )
    for name, id in added.items():
        if tokenizer.id(name) != id:
            raise RunError(
                f"{source.path}: {name} is id {id} in added_tokens.json, but {tokenizer.id(name)} after vocab.json, "
                "which has gaps. Save the tokenizer with the fast tokenizer of transformers (tokenizer.json)"
            )
    return tokenizer


def protocol_of(source: Directory, tokenizer: Tokenizer, config: Whisper) -> Protocol:
    """Returns Whisper's special ids from the tokenizer. The suppressed ids are those of `generation_config.json` (or
    else of `config.json`) and the ids of tokens that occur only in prompts.

    Raises RunError if the tokenizer contains none of the names of a field in NAMES, or if an id is not below
    `vocab_size`."""
    roles: dict[str, int] = {}
    for role, names in NAMES.items():
        ids = [id for id in map(tokenizer.id, names) if id is not None]
        if not ids:
            raise RunError(f"{source.path}: its tokenizer has no {names[0]}")
        roles[role] = ids[0]
    zero = tokenizer.id("<|0.00|>")
    settings = source.record("generation_config.json", Generation)
    languages = {}
    multilingual = config.vocab_size >= MULTILINGUAL if settings.is_multilingual is None else settings.is_multilingual
    if multilingual:
        named = settings.lang_to_id or tokens_between(tokenizer, roles["start"], roles["translate"])
        languages = {code_of(name): id for name, id in named.items()}
    tuned = code_of(settings.language or "")
    in_prompts = {roles[role] for role in ("start", "transcribe", "translate", "previous", "no_speech")}
    in_prompts |= {tokenizer.id(MODEL)}
    protocol = Protocol(
        **roles, timestamps=roles["no_timestamps"] + 1 if zero is None else zero, languages=languages,
        suppressed=sorted({*(settings.suppress_tokens or config.suppress_tokens or []), *in_prompts} - {None}),
        suppressed_first=settings.begin_suppress_tokens or config.begin_suppress_tokens or [],
        latest_start=settings.max_initial_timestamp_index, language=tuned if tuned in languages else None,
    )  # fmt: skip
    if protocol.highest >= config.vocab_size:
        raise RunError(
            f"{source.path}: the special id {protocol.highest} is outside config.json's vocab_size "
            f"({config.vocab_size})"
        )
    return protocol


def tokens_between(tokenizer: Tokenizer, start: int, end: int) -> dict[str, int]:
    """Returns the ids strictly between the ids `start` and `end`, by token. In Whisper's vocabulary the languages are
    between `<|startoftranscript|>` and `<|translate|>`."""
    names = {id: tokenizer.coder.id_to_token(id) for id in range(start + 1, end)}
    return {name: id for id, name in names.items() if name is not None}


IMPORTERS = {"whisper": import_whisper}
"""The importers by `model_type` in `config.json`."""
