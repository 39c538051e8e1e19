"""One process at a time trains in a run's folder: a lock of the kernel, released however the process ends."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any

from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record, as_record
from ...tokenizers.files.writing import not_written
from .reading import RunError


class Holder(Record):
    """The content of `.lock`, for the message to a second start.

    {"pid": 4242, "host": "box", "since": "2026-01-31 12:00:00"}
    """

    pid: int
    host: str
    since: str


class LockedError(RunError):
    """A run's folder is in use by another process."""


class RunLock:
    """A context in which this process alone has the folder. Entering raises LockedError where another process has it,
    naming that process and since when, OSError where the disk has no locks or cannot be written to."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / ".lock"
        self.handle: Any = None

    def __enter__(self) -> RunLock:
        self.handle = self.opened()
        try:
            lock(self.handle)
        except BlockingIOError:
            told = self.told()
            self.handle.close()
            raise LockedError(
                f"{self.folder} is in use{told}; wait until it is done, stop it, or choose another out="
            ) from None
        except OSError as error:  # such as a disk without locks
            self.handle.close()
            raise OSError(error.errno, f"{self.file} cannot be locked: {error.strerror}") from error
        self.handle.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        self.handle.flush()
        return self

    def opened(self) -> Any:
        """The lock file, open, made where there is none; a link in its place is not followed. Raises OSError naming it,
        LockedError where it is no regular file."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            number = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except (OSError, ValueError) as error:
            raise not_written(self.file, error) from error
        if not stat.S_ISREG(os.fstat(number).st_mode):
            os.close(number)
            raise LockedError(f"{self.file} is no regular file: delete it, or choose another out=")
        return open(number, "a+")

    def told(self) -> str:
        """Who holds the lock, for the message; empty where the file does not say."""
        self.handle.seek(0)
        try:
            holder = as_record(self.handle.read(), Holder, str(self.file))
        except (DataError, OSError, UnicodeDecodeError):
            return ""
        return f": process {holder.pid} on {holder.host} works on it since {holder.since}"

    def __exit__(self, *exception: object) -> None:
        if self.handle is not None:
            self.handle.close()  # and with it the lock; the file stays: who waits for it must wait for the same one


def lock(handle: Any) -> None:
    """Take the kernel's lock on an open file, without waiting. Programs that this process starts do not inherit it
    (PEP 446). Raises BlockingIOError where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
