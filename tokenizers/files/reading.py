"""Reading files of any origin: their bytes, lines and texts, within bounds.

The readers here, in `files/records.py` and in `media/files.py` either give a value of the type and within the bounds
that were asked for, or raise DataError with one sentence that names the file. Nothing in a file is ever executed.
"""

from __future__ import annotations

import glob
import gzip
import lzma
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Source = bytes | str | os.PathLike
"""A file's content (bytes), or its path."""

SMALL, LARGE = 2**24, 2**32
"""The most bytes of a file of settings (16 MiB), and of a data file that is read as a whole (4 GiB)."""


class DataError(ValueError):
    """Data that is missing, damaged or not what it should be; the message names the file or the sample."""


def shown(value: Any) -> str:
    """A value's `repr` for a message, at most 80 characters of it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def regular(path: str | os.PathLike) -> os.stat_result:
    """`os.stat` of a regular file. Raises DataError where there is none, or a folder, a pipe or a device, which might
    never end."""
    named = os.fspath(path)
    try:
        told = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{named} does not exist") from None
    except (OSError, ValueError) as error:  # a name that is too long, or holds what no name can
        raise DataError(f"{named!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(told.st_mode):
        raise DataError(f"{named} is {'a folder' if stat.S_ISDIR(told.st_mode) else 'no regular file'}")
    return told


def matching(pattern: str) -> list[str]:
    """The paths that a pattern such as `**/*.txt` matches, sorted. Raises DataError for what is longer than a path."""
    if len(pattern) > 4096:
        raise DataError(f"{shown(pattern)} has {len(pattern):,} characters; a path has 4,096 at most")
    return sorted(glob.glob(pattern, recursive=True))


def read_bytes(path: str | os.PathLike, most: int = LARGE) -> bytes:
    """A regular file's content, up to its length at the call: a run may be adding to it. Raises DataError where there
    is none, it cannot be read, or has more than `most` bytes."""
    size = regular(path).st_size
    if size > most:
        raise DataError(f"{os.fspath(path)} has {size:,} bytes, more than the {most:,} that are read")
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def as_text(content: bytes, where: str, line: int = 1) -> str:
    """A UTF-8 file's content as text, without a byte order mark. Raises DataError as `utf8` does."""
    return utf8(content, where, line).removeprefix("\ufeff")


def utf8(content: bytes, where: str, line: int = 1) -> str:
    """UTF-8 bytes as text. Raises DataError naming the first byte that is not UTF-8 and its line; `line` is the number
    of the first line of `content`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        place = f"{where}, line {line}" if where else f"line {line}"
        byte = f"byte {error.start} (0x{content[error.start]:02x})"
        raise DataError(f"{place}: {byte} is not valid UTF-8 ({error.reason})") from None


def read_text(path: str | os.PathLike, most: int = SMALL) -> str:
    """The text of a UTF-8 file, newlines unchanged. Raises DataError as `read_bytes` and `utf8` do."""
    return as_text(read_bytes(path, most), os.fspath(path))


PACKED: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
"""What opens a compressed file, by its suffix."""

LONGEST = 2**28
"""The most bytes of a line (256 MiB)."""


def unpacked_most(size: int) -> int:
    """The most bytes that a compressed file of `size` bytes may unpack to: 100 times its size, at least 1 GiB. What
    unpacks to more is a decompression bomb."""
    return max(100 * size, 2**30)


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a plain, `.gz`, `.tgz` or `.xz` file, each with its newline, one by one. Raises DataError for a file
    that cannot be read, a line longer than `LONGEST`, and what unpacks to more than `unpacked_most`."""
    named, opener, total = os.fspath(path), PACKED.get(Path(path).suffix), 0
    regular(path)
    try:
        most = unpacked_most(os.path.getsize(path)) if opener else sys.maxsize
        with (opener or open)(path, "rb") as file:
            while line := file.readline(LONGEST):
                total += len(line)
                if len(line) == LONGEST and not line.endswith(b"\n"):
                    raise DataError(f"{named} has a line of more than {LONGEST:,} bytes")
                if total > most:
                    raise DataError(f"{named} unpacks to more than {most:,} bytes; unpack it yourself if that is meant")
                yield line
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{named} cannot be read: {error or type(error).__name__}") from error


def read_packed_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file (plain, `.gz`, `.tgz` or `.xz`), newlines unchanged, without a byte order mark. Raises
    DataError as `read_lines` and `utf8` do."""
    return as_text(b"".join(read_lines(path)), os.fspath(path))
