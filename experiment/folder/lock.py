"""A run's folder belongs to one process at a time: a lock that the kernel holds, and drops when the process ends,
however it ends."""

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


class Holder(Record):
    """Who holds a lock: what a second start is told."""

    pid: int
    host: str
    since: str


class LockedError(ValueError):
    """A run's folder that another process is using."""


class RunLock:
    """Held from `with` to its end. Raises LockedError where another process holds it, saying which and since when."""

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
        except OSError as error:  # a disk without locks: better no lock than no run
            self.handle.close()
            raise OSError(error.errno, f"{self.file} cannot be locked: {error.strerror}") from error
        self.handle.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        self.handle.flush()
        return self

    def opened(self) -> Any:
        """The file, made where there is none; what a link in its place leads to is not touched. Raises
        OSError naming it."""
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
        """Who holds it, as far as the file says."""
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
    """Take the kernel's lock on an open file, or raise BlockingIOError. Not handed on to child processes: Python
    opens files so."""
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
