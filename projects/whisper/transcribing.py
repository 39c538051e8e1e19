"""Transcription with an imported Whisper: of one sound (`transcribe`), and of the files of `chopmix transcribe RUN
FILE...`. The transcripts of files are written as text, JSON or subtitles (SRT, VTT)."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...experiment.run import Run, RunError
from ...files.printing import as_written, plain_console, printable
from ...files.reading import DataError
from ...files.records import as_record
from ...files.writing import write_text
from ...tokenizers.audio_stem import AudioStemChopper
from .decoding import SHORTEST, Protocol
from .transcription import Segment, Transcriber, Transcribing, Transcript, vocabulary_of, window_planner


def transcriber_of(run: Run) -> tuple[Transcriber, AudioStemChopper]:
    """Returns the transcriber of an imported Whisper, and the chopper that computes its spectrograms. Raises RunError
    if the run is not a Whisper or its context is shorter than `SHORTEST`, and DataError if its special ids cannot be
    read or are outside the vocabulary."""
    task, text = run.text_task()
    sounds = [name for name, chopper in run.choppers.items() if isinstance(chopper, AudioStemChopper)]
    encoding = run.choppers[text].vocabulary
    if not sounds or "whisper" not in encoding.frame:
        raise RunError(f"{run.folder} is not a Whisper (see `chopmix import DIR RUN`); use `chopmix predict`")
    (sound,) = sounds
    chopper: AudioStemChopper = run.choppers[sound]
    plan = window_planner(run.choppers, sound, text)
    protocol = protocol_of(run, text, vocabulary_of(run.model, text))
    return Transcriber(run.model, protocol, plan, chopper, encoding, input=text, task=task), chopper


def protocol_of(run: Run, text: str, vocabulary: int) -> Protocol:
    """Returns Whisper's special ids, which are stored with the encoding of the input `text`. `vocabulary` is the
    vocabulary size of the model. Raises DataError if the ids cannot be read or are not below `vocabulary`, and RunError
    if the context of the model is shorter than `SHORTEST`."""
    file = run.folder / "assets" / run.config.wiring.owners[text] / "encoding.json"
    protocol = as_record(json.dumps(run.choppers[text].vocabulary.frame["whisper"]), Protocol, f"{file}: whisper")
    if protocol.highest >= vocabulary:
        raise DataError(f"{file}: whisper: id {protocol.highest} is outside the model's vocabulary of {vocabulary}")
    if run.model.context < SHORTEST:
        raise RunError(f"{run.folder} has a context of {run.model.context}; a Whisper needs at least {SHORTEST}")
    return protocol


def transcribe(
    run: Run, source: Any, how: Transcribing = Transcribing(), advance: Callable[[float, float], None] | None = None
) -> Transcript:
    """Transcribes one sound of any length. `source` is a path, the bytes of a sound file, or a pair (samples, rate in
    hertz). The language is detected before this function returns; the segments are decoded during the iteration over
    the returned transcript. After each segment, `advance` is called with the completed and the total number of seconds.
    Raises ValueError if the sound cannot be read, or if the model does not support the language or translation, and
    RunError or DataError in the cases of `transcriber_of`."""
    transcriber, chopper = transcriber_of(run)
    transcriber.check(how)
    clip = AudioStemChopper(mels=chopper.mels, longest=1e9, fill=None).decode(source)
    silence = torch.zeros(transcriber.frames * chopper.hop_samples)
    spectrogram = chopper.spectrogram(torch.cat([clip, silence]))
    length = len(clip) // chopper.hop_samples
    transcript = transcriber.transcribe(spectrogram.to(run.model_device), length, how)
    return Transcript(transcript.language, _with_progress(transcript, length * chopper.hop, advance))


def _with_progress(
    segments: Iterable[Segment], total: float, advance: Callable[[float, float], None] | None
) -> Iterator[Segment]:
    """Yields the segments. Calls `advance` before each segment is yielded and at the end, with the completed and the
    total number of seconds."""
    for segment in segments:
        if advance:
            advance(segment.end, total)
        yield segment
    if advance:
        advance(total, total)


# ---------------------------------------------------------------------------------------------------- the command line


def as_text(segments: Iterable[Segment]) -> str:
    """Returns the texts of the segments, one line per segment."""
    return "".join(f"{segment.text}\n" for segment in segments)


def as_json(transcript: Transcript) -> str:
    """Returns a JSON object: `{"language": "en", "text": "...", "segments": [{"start": 0.0, "end": 2.5, "text": "...",
    ...}]}`. `start` and `end` are in seconds."""
    segments = list(transcript)
    parts = [
        {"start": s.start, "end": s.end, "text": s.text, "mean_log_probability": round(s.decoding.log, 4),
         "no_speech_probability": round(s.decoding.no_speech, 4), "temperature": s.decoding.temperature,
         "compression_ratio": round(s.decoding.compression, 4)}
        for s in segments
    ]  # fmt: skip
    record = {"language": transcript.language, "text": "".join(s.raw for s in segments).strip(), "segments": parts}
    return json.dumps(record, ensure_ascii=False, indent=1) + "\n"


def as_srt(segments: Iterable[Segment]) -> str:
    """Returns SubRip (SRT) subtitles."""
    return "\n".join(
        f"{number}\n{clock(s.start, ',')} --> {clock(s.end, ',')}\n{s.text.replace('-->', '->')}\n"
        for number, s in enumerate(segments, start=1)
    )


def as_vtt(segments: Iterable[Segment]) -> str:
    """Returns WebVTT subtitles. `&` and `<` are escaped as in HTML."""
    parts = [f"{clock(s.start, '.')} --> {clock(s.end, '.')}\n{html.escape(s.text, quote=False)}\n" for s in segments]
    return "\n".join(["WEBVTT\n", *parts])


def clock(seconds: float, point: str) -> str:
    """Returns a time as hours, minutes, seconds and milliseconds. `point` separates the milliseconds: `clock(62.5,
    ",")` is `00:01:02,500`."""
    ms = round(seconds * 1000)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


FORMATS = {"txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt}


def write_transcripts(
    run: Run, files: Sequence[str], how: Transcribing, formats: Sequence[str], folder: Path | None
) -> int:
    """Transcribes files, prints the segments, and writes the transcripts to `NAME.FORMAT` in `folder` (None: in the
    folder of each file). `formats` are keys of FORMATS. A file that cannot be read or whose transcript cannot be
    written is reported and skipped. Returns the number of skipped files. Raises RunError in the cases of
    `transcriber_of` and `output_names`, and ValueError if the model does not support the language or translation."""
    transcriber, _ = transcriber_of(run)
    transcriber.check(how)
    outputs = output_names(files, formats, folder) if formats else {}
    failed, console = 0, plain_console(stderr=True)
    for file in files:
        with progress_bar(console) as bar:
            task = bar.add_task(printable(Path(file).name), total=None, done="")

            def advance(done: float, total: float, bar=bar, task=task) -> None:
                bar.update(task, completed=done, total=total, done=f"{done:.0f} of {total:.0f} s")

            try:
                transcript, segments = transcribe(run, file, how, advance), []
                if transcriber.protocol.languages and not how.language:
                    console.print(f"{file}: language {transcript.language}", soft_wrap=True)
                for segment in transcript:
                    segments.append(segment)
                    when = f"[{clock(segment.start, '.')} --> {clock(segment.end, '.')}]"
                    print(as_written(f"{when} {segment.text}"), flush=True)
                for kind in formats:
                    out = outputs[file]
                    content = FORMATS[kind](Transcript(transcript.language, segments))
                    write_text(out.with_name(f"{out.name}.{kind}"), content)
            except (ValueError, OSError) as error:
                console.print(f"{file}: {error}", soft_wrap=True)
                failed += 1
    return failed


def progress_bar(console: Console) -> Progress:
    """Returns a progress bar for one file, which is shown on standard error if standard error is a terminal."""
    name, done = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[done]}", markup=False)
    columns = (name, BarColumn(), done, TimeRemainingColumn())
    redirect = sys.stdout.isatty()  # not if standard output is a file
    return Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=redirect
    )


def output_names(files: Sequence[str], formats: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Returns the output path of each file without extension, such as `talks/a` for `talks/a.mp3`, and creates the
    folders. Raises RunError if two different files have the same output path, or if a folder cannot be created or
    written to."""
    paths = {file: (folder or Path(file).parent) / Path(file).stem for file in files}
    owners: dict[Path, str] = {}
    for file, out in paths.items():
        if owners.setdefault(out, file) != file:
            raise RunError(
                f"{owners[out]} and {file} would both be written to {out}.{formats[0]}; transcribe them separately"
            )
    for parent in {out.parent for out in paths.values()}:
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: the name is not valid
            raise RunError(f"{parent} cannot be written to: {getattr(error, 'strerror', error)}") from error
        if not os.access(parent, os.W_OK):
            raise RunError(f"{parent} cannot be written to")
    return paths
