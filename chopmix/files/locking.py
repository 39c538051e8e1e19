"""Locks on open files."""

from __future__ import annotations

from typing import Any


def lock(handle: Any, wait: bool = False) -> None:
    """Takes an exclusive lock on an open file. The lock is released when the file is closed. Started programs do not
    inherit the lock (PEP 446). With `wait`, waits until no other process holds the lock. Without `wait`, raises
    BlockingIOError if another process holds the lock. Raises OSError if the disk does not support locks."""
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
