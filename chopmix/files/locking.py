"""The kernel's lock on an open file."""

from __future__ import annotations

from typing import Any


def lock(handle: Any, wait: bool = False) -> None:
    """Take the lock, which ends when the file is closed; `wait` for it where another process has it. Programs that this
    process starts do not inherit it (PEP 446). Raises BlockingIOError where another process holds it, OSError where the
    disk has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        return
    fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
