"""Atomic writing: files are replaced whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<process>[0-9]{1,9})")
"""The names that `partial_name` gives; `name` is NAME.HOST."""


def partial_name(path: Path) -> Path:
    """The name that a file has while it is written: `.NAME.HOST.RANDOM.PROCESS`, by which `sweep` finds what killed
    processes have left. Raises OSError for a folder, `.` among them."""
    if os.path.isdir(path):  # which raises nothing, of whatever name
        raise not_written(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    return path.parent / f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.{os.getpid()}"


def sweep(files: Iterable[Path], every_host: bool = False) -> None:
    """Delete the partial files (and folders) among `files` whose processes, on this machine, have ended; with
    `every_host` (nobody else may write here) also those of other machines, and those of an earlier process with this
    one's id, as in a container."""
    host = f".{socket.gethostname()}"
    for file in files:
        if found := PARTIAL.fullmatch(file.name):
            here, process = found["name"].endswith(host), int(found["process"])
            alive = here and process != os.getpid() and is_alive(process)
            if not alive and (every_host or (here and process != os.getpid())):
                delete(file)


def delete(path: Path) -> None:
    """Delete a file, a link, or a folder with all that is in it; what cannot be deleted stays."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path, ignore_errors=True)


def sweep_partials(path: Path) -> None:
    """Delete the partial files of `path` whose processes, on this machine, have ended."""
    start = f".{path.name}.{socket.gethostname()}."
    with suppress(OSError):  # there is no such folder
        sweep(file for file in path.parent.iterdir() if file.name.startswith(start))


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


def make_folder(path: Path, within: Path | None = None) -> None:
    """Make a folder and its parents where they are missing, but not `within`, which must be there. Raises OSError
    naming it."""
    try:
        _make_folder(path, within)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error


def _make_folder(path: Path, within: Path | None) -> None:
    if within is not None and not os.path.isdir(within):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {within}")
    path.mkdir(parents=True, exist_ok=True)


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk. Raises OSError naming it."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str, within: Path | None = None) -> None:
    """Replace a text file, in UTF-8, as `write_bytes` does."""
    try:
        content = text.encode()
    except ValueError as error:
        raise not_written(path, error) from error
    write_bytes(path, content, within)


def write_bytes(path: Path, content: bytes, within: Path | None = None) -> None:
    """Replace a file as a whole: readers see the old content or the new, never half of it. Its folder is made as
    `make_folder` does. Raises OSError naming the file."""
    partial = partial_name(path)
    try:
        _make_folder(path.parent, within)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a name or a text that no file can have
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def write_json(path: Path, value: Any, within: Path | None = None) -> None:
    """Replace a JSON file as `write_bytes` does. Raises OSError naming the file."""
    write_text(path, json.dumps(value, indent=1), within)
