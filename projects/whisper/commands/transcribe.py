"""`chopmix transcribe RUN FILE...`: print the speech in sound files as text, and write it in the formats asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from ....commands.options.shared import add_checkpoint, load

HELP = "write down what is said in sound files, with an imported Whisper"
AFTER = "compare"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN")
    command.add_argument("files", nargs="+", metavar="FILE", help="wav, flac, ogg or mp3, of any length")
    command.add_argument("--format", action="append", choices=("txt", "json", "srt", "vtt"), default=[],
                         help="also write FILE.FORMAT; repeatable")  # fmt: skip
    command.add_argument("--output", metavar="DIR", help="where those go (default: beside each file)")
    command.add_argument(
        "--language", metavar="NAME", help="such as de or German; default: what the model was tuned for, else detected"
    )
    command.add_argument("--translate", action="store_true", help="into English")
    command.add_argument("--no-timestamps", action="store_true", help="segments of 30 seconds, without times inside")
    command.add_argument("--beams", type=int, default=5, metavar="N")
    command.add_argument("--temperature", type=float, action="append", metavar="T",
                         help="tried in turn; repeatable (default: 0, 0.2, ... 1)")  # fmt: skip
    command.add_argument("--independent", action="store_true", help="read every window without the text before it")
    add_checkpoint(command)


def run(options: argparse.Namespace) -> int:
    """The exit status: 1 where a file could not be read."""
    from ..transcribing import write_transcripts
    from ..transcription import Transcribing

    loaded = load(options)
    given = {"temperatures": tuple(options.temperature)} if options.temperature else {}
    how = Transcribing(language=options.language, translate=options.translate, timestamps=not options.no_timestamps,
                       beams=options.beams, follow=not options.independent, **given)  # fmt: skip
    folder = Path(options.output) if options.output else None
    return 1 if write_transcripts(loaded, options.files, how, options.format, folder) else 0
