"""Atomic writing: files are replaced whole or not at all."""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any


def partial_name(path: Path) -> Path:
    """The name that a file has while it is written: `.NAME.HOST.RANDOM.PROCESS`, by which `sweep_partials` finds what
    killed processes have left. Raises OSError for a folder, `.` among them."""
    if os.path.isdir(path):  # which raises nothing, of whatever name
        raise not_written(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    return path.parent / f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.{os.getpid()}"


def sweep_partials(path: Path) -> None:
    """Delete the partial files of `path` whose processes, on this machine, have ended."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(socket.gethostname())}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and len(number) < 10 and not is_alive(int(number)):
            with suppress(OSError):
                left.unlink()


def is_alive(process: int) -> bool:
    """Whether a process of this id runs on this machine; one that has ended and that its parent has not asked for yet
    (a zombie) does not."""
    try:
        os.kill(process, 0)
    except OSError as error:  # any other error: it is somebody else's
        return not isinstance(error, ProcessLookupError)
    with suppress(OSError):  # Linux tells the state behind the name, which stands in parentheses
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[:1] != ["Z"]
    return True


def not_written(path: Path, error: OSError | ValueError) -> OSError:
    """The error to raise for a file or folder that cannot be written; its message names the path."""
    why = getattr(error, "strerror", None) or error
    return OSError(getattr(error, "errno", None), f"{path} cannot be written: {why}")


def make_folder(path: Path) -> None:
    """Make a folder and its parents where they are missing. Raises OSError naming it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file, in UTF-8, as `write_bytes` does."""
    try:
        content = text.encode()
    except ValueError as error:
        raise not_written(path, error) from error
    write_bytes(path, content)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file as a whole: readers see the old content or the new, never half of it. Raises OSError naming the
    file."""
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a name or a text that no file can have
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole. Raises OSError naming the file."""
    write_text(path, json.dumps(value, indent=1))
