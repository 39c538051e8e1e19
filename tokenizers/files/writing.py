"""Files written whole or not at all."""

from __future__ import annotations

import glob
import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any


def partial_name(path: Path) -> Path:
    """The name that a file has until it is whole. It tells of the machine and the process that write it, so that what a
    killed one has left can be known for that (see `sweep_partials`)."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{secrets.token_hex(4)}.{os.getpid()}")


def sweep_partials(path: Path) -> None:
    """Delete what processes of this machine that are no more have left of a file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(socket.gethostname())}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and len(number) < 10 and not is_alive(int(number)):
            with suppress(OSError):
                left.unlink()


def is_alive(process: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def not_written(path: Path, error: OSError | ValueError) -> OSError:
    """The error of a file or a folder that cannot be written, which names it."""
    why = getattr(error, "strerror", None) or error
    return OSError(getattr(error, "errno", None), f"{path} cannot be written: {why}")


def make_folder(path: Path) -> None:
    """A folder, and those above it, where there is none yet. Raises OSError naming it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise not_written(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole: readers see the old text or the new, never half of it. Raises OSError naming the
    file."""
    partial = partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, ValueError) as error:  # ValueError: a name or a text that no file can have
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)
        raise not_written(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file as a whole."""
    write_text(path, json.dumps(value, indent=1))
