"""Writing files: a file is replaced completely or not at all. Locks on open files."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from .reading import DataError

PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<process>[0-9]{1,9})")
"""Matches the file names that `partial_name` returns. The group `name` is NAME.HOST, the group `process` a process
id."""


def partial_name(path: Path) -> Path:
    """Returns the temporary path for writing the file `path`: `.NAME.HOST.RANDOM.PROCESS` in the same folder. `sweep`
    uses this name to find the files of killed processes. Raises OSError if `path` is a folder."""
    if os.path.isdir(path):  # os.path.isdir never raises, unlike Path.is_dir
        raise not_written(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    return path.parent / f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.{os.getpid()}"


@contextmanager
def atomic_file(path: Path, mode: str = "w", **options: Any) -> Iterator[Any]:
    """Returns a context with an open temporary file. At the end of the context the file is renamed to `path`. After an
    exception, the temporary file is deleted. `options` are those of `open`. Raises OSError with the path if the file
    cannot be written."""
    partial = partial_name(path)
    sweep_partials(path)
    try:
        with open(partial, mode, **options) as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        delete(partial)


def sweep(files: Iterable[Path], every_host: bool = False) -> None:
    """Deletes the partial files and folders among `files` whose process ran on this machine and has ended. With
    `every_host`, also deletes the partial files of other machines, and those with the id of the current process (in a
    container, an earlier process may have had the same id). Use `every_host` only if no other process may write these
    files."""
    host = f".{socket.gethostname()}"
    for file in files:
        if match := PARTIAL.fullmatch(file.name):
            is_local, process = match["name"].endswith(host), int(match["process"])
            alive = is_local and process != os.getpid() and is_alive(process)
            if not alive and (every_host or (is_local and process != os.getpid())):
                delete(file)


def delete(path: Path) -> None:
    """Deletes a file, a symbolic link, or a folder with its content. Errors are ignored."""
    with suppress(OSError):
        path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path, ignore_errors=True)


def sweep_partials(path: Path) -> None:
    """Deletes the partial files of `path` whose process ran on this machine and has ended."""
    start = f".{path.name}.{socket.gethostname()}."
    with suppress(OSError):  # the folder does not exist
        sweep(file for file in path.parent.iterdir() if file.name.startswith(start))


def is_alive(process: int) -> bool:
    """Returns whether a process with this id runs on this machine. On Linux, returns False for a zombie (a process that
    has ended, but that its parent has not collected)."""
    try:
        os.kill(process, 0)
    except OSError as error:  # other errors: the process belongs to another user
        return not isinstance(error, ProcessLookupError)
    with suppress(OSError):  # on Linux the state follows the name, which is in parentheses
        return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[:1] != ["Z"]
    return True


def not_written(path: Path, error: OSError | ValueError) -> OSError:
    """Returns an OSError for a file or folder that cannot be written. The message contains the path and the cause
    `error`, without a path that this function has added before."""
    why = str(getattr(error, "strerror", None) or error).rpartition(" cannot be written: ")[2]
    return OSError(getattr(error, "errno", None), f"{path} cannot be written: {why}")


def open_for_append(path: Path) -> IO[str]:
    """Opens a text file for reading and appending, and creates it if it is missing. Symbolic links are not followed.
    Raises DataError if the file is not a regular file, or has more than one hard link: a folder from someone else can
    contain a link to a file elsewhere, which would change too. Raises OSError with the path if the file cannot be
    opened."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags, 0o644)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        reason = f"has {status.st_nlink} hard links" if status.st_nlink > 1 else "is not a regular file"
        raise DataError(f"{path} {reason}, so nothing is written into it; delete it, or use a copy of the folder")
    return open(descriptor, "a+")


def make_folder(path: Path, within: Path | None = None) -> None:
    """Creates a folder and its missing parents; does nothing if the folder exists. Raises OSError with the path if the
    folder cannot be created, or if the folder `within` does not exist."""
    try:
        _make_folder(path, within)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error


def _make_folder(path: Path, within: Path | None) -> None:
    if within is not None and not os.path.isdir(within):
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {within}")
    path.mkdir(parents=True, exist_ok=True)


def flush(path: Path) -> None:
    """Waits until a file or folder is written to the disk. Raises OSError with the path if the file cannot be
    written."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str, within: Path | None = None) -> None:
    """Writes a text file in UTF-8 like `write_bytes`. Raises OSError with the path also if UTF-8 cannot represent the
    text."""
    try:
        content = text.encode()
    except ValueError as error:
        raise not_written(path, error) from error
    write_bytes(path, content, within)


def write_bytes(path: Path, content: bytes, within: Path | None = None) -> None:
    """Writes a file atomically: readers see either the old or the new content. The folder of the file is created like
    in `make_folder`. Raises OSError with the path if the file cannot be written."""
    partial = partial_name(path)
    try:
        _make_folder(path.parent, within)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def write_json(path: Path, value: Any, within: Path | None = None) -> None:
    """Writes a value as a JSON file like `write_text`."""
    write_text(path, json.dumps(value, indent=1), within)


def lock_on_windows(handle: Any, wait: bool) -> None:
    """See `lock`."""
    import msvcrt

    try:
        msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError from error


def lock(handle: Any, wait: bool = False) -> None:
    """Takes an exclusive lock on an open file. The lock is released when the file is closed. Started programs do not
    inherit the lock (PEP 446). With `wait`, waits until no other process holds the lock. Without `wait`, raises
    BlockingIOError if another process holds the lock. Raises OSError if the disk does not support locks."""
    try:
        import fcntl
    except ImportError:
        lock_on_windows(handle, wait)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
