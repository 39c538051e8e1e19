"""`chopmix transcribe RUN FILE...`: what is said in sound files, as text, JSON, or subtitles (SRT, VTT)."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ...inference.transcription import Segment, Transcriber, Transcribing, Transcript, vocabulary_of
from ...inference.whisper_decoding import SHORTEST, Protocol
from ...models.batch import SetPlan
from ...tokenizers.audio_stem import AudioStemChopper
from ...tokenizers.base import Chunk
from ...tokenizers.files.printing import as_written, printable
from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import as_record
from ...tokenizers.files.writing import write_text
from ...tokenizers.packing import place
from ..build import axes_of
from ..folder.reading import RunError
from ..run import Run


def transcriber_of(run: Run) -> tuple[Transcriber, AudioStemChopper]:
    """What transcribes with an imported Whisper, and how it reads sound. Raises RunError for a run that is none, DataError where
    its protocol is damaged."""
    task, text = run.text_task()
    sounds = [name for name, chopper in run.choppers.items() if isinstance(chopper, AudioStemChopper)]
    encoding = run.choppers[text].text
    if not sounds or "whisper" not in encoding.frame:
        raise RunError(f"{run.folder} is no Whisper (chopmix import DIR RUN makes one); use `chopmix predict` for it")
    (sound,) = sounds
    chopper: AudioStemChopper = run.choppers[sound]
    frames = chopper.frames_of(0)
    axes = axes_of(run.choppers.values())

    def plan(window: torch.Tensor, ids: Sequence[int]) -> dict[str, SetPlan]:
        count = (window.shape[1] + 1) // 2
        heard = place(
            [[(sound, Chunk(window[None], count, chopper.seconds(count)))]], run.choppers, count, axes, rows=[0]
        )
        written = Chunk(torch.tensor(ids), len(ids), next_ids=torch.tensor([*ids[1:], encoding.end]))
        said = place([[(text, written)]], run.choppers, len(ids), axes, rows=[0])
        return {"encoder": heard, "main": said}

    protocol = protocol_of(run, text, vocabulary_of(run.model, text))
    made = Transcriber(run.model, protocol, plan, encoding, input=text, task=task, frames=frames, hop=chopper.hop)
    return made, chopper


def protocol_of(run: Run, text: str, vocabulary: int) -> Protocol:
    """The protocol that the encoding of a run's text holds. Raises DataError for a damaged one, RunError for a model whose context
    has no room for what a text begins with."""
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
    """What is said in one sound: a path, a file's bytes, or (samples, rate). Its language is known at once; its segments are heard
    while one goes through them, and `advance` is told after each how many seconds are done, of how many. Raises ValueError for a
    sound that cannot be read, and for a language that the model does not know."""
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
    """The segments, while `advance` is told how far they are."""
    for segment in segments:
        if advance:
            advance(segment.end, total)
        yield segment
    if advance:
        advance(total, total)


def as_text(segments: Iterable[Segment]) -> str:
    """One line per segment."""
    return "".join(f"{segment.text}\n" for segment in segments)


def as_json(transcript: Transcript) -> str:
    """A JSON object with the language, the text and its segments."""
    segments = list(transcript)
    parts = [
        {"start": s.start, "end": s.end, "text": s.text, "mean_log_probability": round(s.said.log, 4),
         "no_speech_probability": round(s.said.no_speech, 4), "temperature": s.said.temperature,
         "compression_ratio": round(s.said.compression, 4)}
        for s in segments
    ]  # fmt: skip
    whole = {"language": transcript.language, "text": "".join(s.raw for s in segments).strip(), "segments": parts}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def as_srt(segments: Iterable[Segment]) -> str:
    """SubRip subtitles."""
    return "\n".join(
        f"{number}\n{clock(s.start, ',')} --> {clock(s.end, ',')}\n{s.text.replace('-->', '->')}\n"
        for number, s in enumerate(segments, start=1)
    )


def as_vtt(segments: Iterable[Segment]) -> str:
    """WebVTT subtitles, in which `&` and `<` are written as in HTML."""
    parts = [f"{clock(s.start, '.')} --> {clock(s.end, '.')}\n{html.escape(s.text, quote=False)}\n" for s in segments]
    return "\n".join(["WEBVTT\n", *parts])


def clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and thousandths: 00:01:02,500."""
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


FORMATS = {"txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt}


def write_transcripts(
    run: Run, files: Sequence[str], how: Transcribing, formats: Sequence[str], folder: Path | None
) -> int:
    """Transcribe files one after another, each into `NAME.FORMAT` beside it (or in `folder`); says on the terminal what is
    heard. A file that cannot be read is named and passed over; gives how many were. Raises RunError for two files that would
    be written to one, ValueError for a language that the model does not know."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    made, _ = transcriber_of(run)
    made.check(how)
    outs: dict[Path, str] = {}
    for file in files if formats else ():
        out = (folder or Path(file).parent) / Path(file).stem
        if outs.setdefault(out, file) != file:
            raise RunError(f"{outs[out]} and {file} would both be written to {out}.{formats[0]}; transcribe them apart")
    for out in {folder or Path(file).parent for file in files if formats}:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{out} cannot be written to: {error.strerror}") from error
        if not os.access(out, os.W_OK):
            raise RunError(f"{out} cannot be written to")
    failed, console = 0, Console(stderr=True)
    name, done = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[heard]}")
    columns = (name, BarColumn(), done, TimeRemainingColumn())
    shown = {"console": console, "transient": True, "disable": not console.is_terminal}
    for file in files:
        with Progress(*columns, **shown, redirect_stdout=sys.stdout.isatty()) as bar:  # else a file takes the text
            task = bar.add_task(printable(Path(file).name), total=None, heard="")

            def advance(done: float, total: float, bar=bar, task=task) -> None:
                bar.update(task, completed=done, total=total, heard=f"{done:.0f} of {total:.0f} s")

            try:
                heard, segments = transcribe(run, file, how, advance), []
                if made.protocol.languages and not how.language:
                    console.print(printable(f"{file}: language {heard.language}"), markup=False, soft_wrap=True)
                for segment in heard:
                    segments.append(segment)
                    when = f"[{clock(segment.start, '.')} --> {clock(segment.end, '.')}]"
                    print(as_written(f"{when} {segment.text}"), flush=True)
                for kind in formats:
                    out = (folder or Path(file).parent) / f"{Path(file).stem}.{kind}"
                    write_text(out, FORMATS[kind](Transcript(heard.language, segments)))
            except (ValueError, OSError) as error:
                console.print(printable(f"{file}: {error}"), markup=False, soft_wrap=True)
                failed += 1
    return failed
