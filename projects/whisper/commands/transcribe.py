"""`chopmix transcribe RUN FILE...`: prints the speech in sound files as text and writes the text in the selected
formats."""

from __future__ import annotations

import argparse
from pathlib import Path

from ....commands.options.shared import add_checkpoint, load

HELP = "transcribe sound files with an imported Whisper"
AFTER = "compare"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg or mp3, of any length")
    command.add_argument("--format", action="append", choices=("txt", "json", "srt", "vtt"), default=[],
                         help="also write FILE.FORMAT; repeatable")  # fmt: skip
    command.add_argument("--output", metavar="DIR", help="output folder (default: the folder of each file)")
    command.add_argument(
        "--language", metavar="NAME", help="such as de or German; default: the fine-tuned language, else detected"
    )
    command.add_argument("--translate", action="store_true", help="translate into English")
    command.add_argument("--no-timestamps", action="store_true", help="one segment per 30-second window")
    command.add_argument("--beams", type=int, default=5, metavar="N")
    command.add_argument("--temperature", type=float, action="append", metavar="T",
                         help="tried in this order; repeatable (default: 0, 0.2, ... 1)")  # fmt: skip
    command.add_argument(
        "--independent", action="store_true", help="decode each window without the preceding text as prompt"
    )
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if at least one file cannot be transcribed, else 0."""
    from ..transcribing import write_transcripts
    from ..transcription import Transcribing

    loaded = load(options)
    temperatures = {"temperatures": tuple(options.temperature)} if options.temperature else {}
    how = Transcribing(language=options.language, translate=options.translate, timestamps=not options.no_timestamps,
                       beams=options.beams, follow=not options.independent, **temperatures)  # fmt: skip
    folder = Path(options.output) if options.output else None
    return 1 if write_transcripts(loaded, options.files, how, options.format, folder) else 0
