"""Transcription of one sound by an imported Whisper."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from ...inference.transcript import Segment, Transcript
from ...inference.transcription import Transcriber, Transcribing, vocabulary_of
from ...inference.whisper_decoding import SHORTEST, Protocol
from ...inference.whisper_window import window_planner
from ...tokenizers.audio_stem import AudioStemChopper
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import as_record
from ..folder.reading import RunError
from ..run import Run


def transcriber_of(run: Run) -> tuple[Transcriber, AudioStemChopper]:
    """The transcriber of an imported Whisper, and the chopper that makes its spectrograms. Raises RunError for a run of
    another kind, DataError where its special ids are damaged."""
    task, text = run.text_task()
    sounds = [name for name, chopper in run.choppers.items() if isinstance(chopper, AudioStemChopper)]
    encoding = run.choppers[text].text
    if not sounds or "whisper" not in encoding.frame:
        raise RunError(f"{run.folder} is no Whisper (chopmix import DIR RUN makes one); use `chopmix predict` for it")
    (sound,) = sounds
    chopper: AudioStemChopper = run.choppers[sound]
    frames = chopper.frames_of(0)
    plan = window_planner(run.choppers, sound, text)
    protocol = protocol_of(run, text, vocabulary_of(run.model, text))
    made = Transcriber(run.model, protocol, plan, encoding, input=text, task=task, frames=frames, hop=chopper.hop)
    return made, chopper


def protocol_of(run: Run, text: str, vocabulary: int) -> Protocol:
    """Whisper's special ids, kept with the encoding of the input `text`. Raises DataError where they are damaged or
    outside the `vocabulary`, RunError for a model whose context is shorter than a prompt."""
    file = run.folder / "assets" / run.config.shares.get(text, text) / "encoding.json"
    found = as_record(json.dumps(run.choppers[text].text.frame["whisper"]), Protocol, f"{file}: whisper")
    if found.highest >= vocabulary:
        raise DataError(f"{file}: whisper: id {found.highest} is outside the model's vocabulary of {vocabulary}")
    if run.model.context < SHORTEST:
        raise RunError(f"{run.folder} has a context of {run.model.context}; a Whisper needs at least {SHORTEST}")
    return found


def transcribe(
    run: Run, source: Any, how: Transcribing = Transcribing(), advance: Callable[[float, float], None] | None = None
) -> Transcript:
    """The transcript of one sound of any length: a path, a file's bytes, or (samples, rate in hertz). Its language is
    known at once; its segments are transcribed while they are iterated over, and `advance` is called after each with
    the seconds done and in all. Raises ValueError for a sound that cannot be read, and for a language that the model
    does not know."""
    made, chopper = transcriber_of(run)
    made.check(how)
    clip = AudioStemChopper(mels=chopper.mels, longest=1e9, fill=None).decode(source)
    silence = torch.zeros(made.frames * chopper.hop_samples)
    spectrogram = chopper.spectrogram(torch.cat([clip, silence]))
    length = len(clip) // chopper.hop_samples
    found = made.transcribe(spectrogram.to(run.model_device), length, how)
    return Transcript(found.language, _told(found, length * chopper.hop, advance))


def _told(
    segments: Iterable[Segment], total: float, advance: Callable[[float, float], None] | None
) -> Iterator[Segment]:
    """The segments, with a call of `advance` for each, and one at the end."""
    for segment in segments:
        if advance:
            advance(segment.end, total)
        yield segment
    if advance:
        advance(total, total)
