"""`chopmix import` of a Whisper directory: weights, tokenizer, and the special tokens that prompt the decoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from ....experiment.interchange.directory import Directory, Imported
from ....experiment.interchange.tokenizers import Tokenizer, tokenizer_of
from ....experiment.run_folder import RunError
from ....files.records import read_record
from ....models.pretrained.base import Id, Published
from ..decoding import Protocol, code_of
from ..pretrained.whisper import Whisper

NAMES = {
    "start": ("<|startoftranscript|>",), "end": ("<|endoftext|>",), "transcribe": ("<|transcribe|>",),
    "translate": ("<|translate|>",), "previous": ("<|startofprev|>",), "no_speech": ("<|nospeech|>", "<|nocaptions|>"),
    "no_timestamps": ("<|notimestamps|>",),
}  # fmt: skip
"""The special tokens by the fields of `Protocol`; of several names the first that a tokenizer has."""
MODEL = "<|startoflm|>"
"""A token of Whisper's training that is never generated; a tokenizer may lack it."""
MULTILINGUAL = 51865
"""Multilingual models have at least this many ids; English-only ones have one fewer."""
Added = RootModel[dict[str, Id]]
"""`added_tokens.json`: ids by token."""


class Generation(Published):
    """The keys of `generation_config.json` that `Protocol` is made of."""

    suppress_tokens: list[Id] | None = None
    begin_suppress_tokens: list[Id] | None = None
    is_multilingual: bool | None = None
    lang_to_id: dict[str, Id] | None = None
    language: str | None = None
    max_initial_timestamp_index: Annotated[int, Field(ge=0, le=1500)] | None = 50


def import_whisper(source: Directory) -> Imported:
    """A Whisper of any size. A text begins, unless asked otherwise, with start, `<|en|>` and `<|transcribe|>` (of a
    multilingual model) and `<|notimestamps|>`. Raises RunError for a directory without its tokenizer."""
    config, own = Whisper.read(source.config), with_added(source)
    own.check_fits(own.coder.get_vocab_size(), config.vocab_size)
    protocol = protocol_of(source, own, config)
    opening = []
    if protocol.languages:
        opening = [protocol.languages.get("en", next(iter(protocol.languages.values()))), protocol.transcribe]
    opening.append(protocol.no_timestamps)
    frame = {"end": protocol.end, "opening": opening, "strip": True, "whisper": protocol.model_dump()}
    encoding = own.encoding(protocol.start, frame, config.vocab_size)
    return Imported(what="Whisper", architecture=config, encoding=encoding, tokenizer=own.file)


def with_added(source: Directory) -> Tokenizer:
    """The directory's tokenizer; one in parts (`vocab.json`, `merges.txt`) with the tokens of `added_tokens.json`.
    Raises RunError where there is none, or an added token would get another id."""
    from tokenizers import AddedToken

    own = tokenizer_of(source)
    if own is None:
        raise RunError(
            f"{source.path} has no tokenizer.json (nor vocab.json and merges.txt); Whisper is asked through its tokens"
        )
    if own.file == "tokenizer.json" or not source.has("added_tokens.json"):
        return own
    added = read_record(source.path / "added_tokens.json", Added).root
    own.coder.add_special_tokens([AddedToken(name, special=True) for name in sorted(added, key=added.__getitem__)])
    for name, id in added.items():
        if own.id(name) != id:
            raise RunError(
                f"{source.path}: {name} is id {id} in added_tokens.json, but {own.id(name)} behind vocab.json: its ids "
                "have gaps; save the tokenizer once with transformers' fast tokenizer (tokenizer.json)"
            )
    return own


def protocol_of(source: Directory, own: Tokenizer, config: Whisper) -> Protocol:
    """Whisper's special ids, from the tokenizer, and the suppressed ids: those that `generation_config.json` or
    `config.json` names, and always the tokens that only prompt the decoder.

    Raises RunError for a token that the tokenizer lacks, or an id outside `vocab_size`.
    """
    found: dict[str, int] = {}
    for role, names in NAMES.items():
        known = [id for id in map(own.id, names) if id is not None]
        if not known:
            raise RunError(f"{source.path}: its tokenizer has no {names[0]}")
        found[role] = known[0]
    zero = own.id("<|0.00|>")
    settings = source.record("generation_config.json", Generation)
    languages = {}
    multilingual = config.vocab_size >= MULTILINGUAL if settings.is_multilingual is None else settings.is_multilingual
    if multilingual:
        named = settings.lang_to_id or between(own, found["start"], found["translate"])
        languages = {code_of(name): id for name, id in named.items()}
    tuned = code_of(settings.language or "")
    asked = {found[role] for role in ("start", "transcribe", "translate", "previous", "no_speech")} | {own.id(MODEL)}
    protocol = Protocol(
        **found, timestamps=found["no_timestamps"] + 1 if zero is None else zero, languages=languages,
        suppressed=sorted({*(settings.suppress_tokens or config.suppress_tokens or []), *asked} - {None}),
        suppressed_first=settings.begin_suppress_tokens or config.begin_suppress_tokens or [],
        latest_start=settings.max_initial_timestamp_index, language=tuned if tuned in languages else None,
    )  # fmt: skip
    if protocol.highest >= config.vocab_size:
        raise RunError(
            f"{source.path}: the special id {protocol.highest} is outside config.json's vocab_size "
            f"({config.vocab_size})"
        )
    return protocol


def between(own: Tokenizer, start: int, end: int) -> dict[str, int]:
    """The ids of the tokens strictly between two ids, by name: in Whisper's vocabulary these are the languages, between
    `<|startoftranscript|>` and `<|translate|>`."""
    names = {id: own.coder.id_to_token(id) for id in range(start + 1, end)}
    return {name: id for id, name in names.items() if name is not None}


IMPORTERS = {"whisper": import_whisper}
"""The importers by the `model_type` of `config.json`."""
