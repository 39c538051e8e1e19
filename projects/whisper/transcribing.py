"""Transcription by an imported Whisper: of one sound, and of the files of `chopmix transcribe RUN FILE...`, written as
text, JSON, or subtitles (SRT, VTT)."""

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
    """The transcriber of an imported Whisper, and the chopper that makes its spectrograms. Raises RunError for a run of
    another kind, DataError where its special ids are damaged."""
    task, text = run.text_task()
    sounds = [name for name, chopper in run.choppers.items() if isinstance(chopper, AudioStemChopper)]
    encoding = run.choppers[text].vocabulary
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
    file = run.folder / "assets" / run.config.wiring.owners[text] / "encoding.json"
    found = as_record(json.dumps(run.choppers[text].vocabulary.frame["whisper"]), Protocol, f"{file}: whisper")
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


# ----------------------------------------------------------------------------------------------- from the command line


def as_text(segments: Iterable[Segment]) -> str:
    """One line per segment."""
    return "".join(f"{segment.text}\n" for segment in segments)


def as_json(transcript: Transcript) -> str:
    """A JSON object: `{"language": "en", "text": "...", "segments": [{"start": 0.0, "end": 2.5, "text": "...", ...}]}`,
    with times in seconds."""
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
    """Hours, minutes, seconds and milliseconds: `clock(62.5, ",")` is `00:01:02,500`."""
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


FORMATS = {"txt": as_text, "json": as_json, "srt": as_srt, "vtt": as_vtt}


def write_transcripts(
    run: Run, files: Sequence[str], how: Transcribing, formats: Sequence[str], folder: Path | None
) -> int:
    """Transcribe files one after another, each into `NAME.FORMAT` beside it (or in `folder`), and print the segments. A
    file that cannot be read is reported and skipped; gives the number of these. `formats`: keys of FORMATS. Raises
    RunError for two files that would be written to one, ValueError for a language that the model does not know."""
    made, _ = transcriber_of(run)
    made.check(how)
    outputs = output_names(files, formats, folder) if formats else {}
    failed, console = 0, plain_console(stderr=True)
    for file in files:
        with progress_bar(console) as bar:
            task = bar.add_task(printable(Path(file).name), total=None, heard="")

            def advance(done: float, total: float, bar=bar, task=task) -> None:
                bar.update(task, completed=done, total=total, heard=f"{done:.0f} of {total:.0f} s")

            try:
                heard, segments = transcribe(run, file, how, advance), []
                if made.protocol.languages and not how.language:
                    console.print(f"{file}: language {heard.language}", soft_wrap=True)
                for segment in heard:
                    segments.append(segment)
                    when = f"[{clock(segment.start, '.')} --> {clock(segment.end, '.')}]"
                    print(as_written(f"{when} {segment.text}"), flush=True)
                for kind in formats:
                    out = outputs[file]
                    write_text(out.with_name(f"{out.name}.{kind}"), FORMATS[kind](Transcript(heard.language, segments)))
            except (ValueError, OSError) as error:
                console.print(f"{file}: {error}", soft_wrap=True)
                failed += 1
    return failed


def progress_bar(console: Console) -> Progress:
    """A progress bar on standard error for one file."""
    name, done = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[heard]}", markup=False)
    columns = (name, BarColumn(), done, TimeRemainingColumn())
    own = sys.stdout.isatty()  # standard output may be a file
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, redirect_stdout=own)


def output_names(files: Sequence[str], formats: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """The path of each file's transcript, without ending: `talks/a` for `talks/a.mp3`; makes the folders. Raises
    RunError for two files with one path, and for a folder that cannot be written to."""
    found = {file: (folder or Path(file).parent) / Path(file).stem for file in files}
    owners: dict[Path, str] = {}
    for file, out in found.items():
        if owners.setdefault(out, file) != file:
            raise RunError(
                f"{owners[out]} and {file} would both be written to {out}.{formats[0]}; transcribe them apart"
            )
    for parent in {out.parent for out in found.values()}:
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
            raise RunError(f"{parent} cannot be written to: {getattr(error, 'strerror', error)}") from error
        if not os.access(parent, os.W_OK):
            raise RunError(f"{parent} cannot be written to")
    return found
