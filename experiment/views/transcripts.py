"""`chopmix transcribe RUN FILE...`: transcripts as text, JSON, or subtitles (SRT, VTT), beside their files."""

from __future__ import annotations

import html
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ...inference.transcript import Segment, Transcript
from ...inference.transcription import Transcribing
from ...tokenizers.files.printing import as_written, printable
from ...tokenizers.files.writing import write_text
from ..folder.reading import RunError
from ..run import Run
from .transcribe import transcribe, transcriber_of


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
    failed, console = 0, Console(stderr=True)
    for file in files:
        with progress_bar(console) as bar:
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
                    out = outputs[file]
                    write_text(out.with_name(f"{out.name}.{kind}"), FORMATS[kind](Transcript(heard.language, segments)))
            except (ValueError, OSError) as error:
                console.print(printable(f"{file}: {error}"), markup=False, soft_wrap=True)
                failed += 1
    return failed


def progress_bar(console: Console) -> Progress:
    """A progress bar on standard error for one file."""
    name, done = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[heard]}")
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
        except OSError as error:
            raise RunError(f"{parent} cannot be written to: {error.strerror}") from error
        if not os.access(parent, os.W_OK):
            raise RunError(f"{parent} cannot be written to")
    return found
