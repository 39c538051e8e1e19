"""The one door for foreign data: files to bytes, texts, records, tensors, arrays, pictures and sounds.

Whatever is in a file that we did not just write, its reader here either gives the value, of the type and within the
bounds that were asked for, or raises DataError with one sentence that names the file. Nothing in a file is ever
executed.
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
"""A file's content, or where it is."""

SMALL, LARGE = 2**24, 2**32
"""Bytes that a file of settings may have, and one of data that is read as a whole."""


class DataError(ValueError):
    """Data that is missing, damaged or not what it should be; the message names the file or the sample."""


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a whole number of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def regular(path: str | os.PathLike) -> os.stat_result:
    """What the system tells of a regular file. Raises DataError where there is none, or something else stands there: a
    folder, or a pipe or a device, which might never end."""
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
    """The paths that a pattern such as `**/*.txt` matches, in their order. Raises DataError for one that is longer than
    a path."""
    if len(pattern) > 4096:
        raise DataError(f"{shown(pattern)} has {len(pattern):,} characters; a path has 4,096 at most")
    return sorted(glob.glob(pattern, recursive=True))


def read_bytes(path: str | os.PathLike, most: int = LARGE) -> bytes:
    """A regular file's content, as long as it is when asked for: a run may be adding to it. Raises DataError where
    there is none, it cannot be read, or has more than `most` bytes."""
    size = regular(path).st_size
    if size > most:
        raise DataError(f"{os.fspath(path)} has {size:,} bytes, more than the {most:,} that are read")
    try:
        with open(path, "rb") as file:
            return file.read(size)
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def as_text(content: bytes, where: str, line: int = 1) -> str:
    """A file of UTF-8 as text, without a byte order mark. Raises DataError as `utf8` does."""
    return utf8(content, where, line).removeprefix("\ufeff")


def utf8(content: bytes, where: str, line: int = 1) -> str:
    """UTF-8 bytes, which begin in a `line`, as text. Raises DataError naming the byte and the line that are not."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        place = f"{where}, line {line}" if where else f"line {line}"
        byte = f"byte {error.start} (0x{content[error.start]:02x})"
        raise DataError(f"{place}: {byte} is not valid UTF-8 ({error.reason})") from None


def read_text(path: str | os.PathLike, most: int = SMALL) -> str:
    """A whole UTF-8 file, newlines as they are."""
    return as_text(read_bytes(path, most), os.fspath(path))


PACKED: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
"""What unpacks a file, by its ending."""

LONGEST = 2**28
"""Bytes that one line may have."""


def unpacked_most(path: str | os.PathLike) -> int:
    """How many bytes may come out of a packed file: a hundred times its own, or a GiB; what packs better is made to
    fill disks."""
    return max(100 * os.path.getsize(path), 2**30)


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a plain, `.gz` or `.xz` file, each with its end, one by one. Raises DataError naming the file."""
    named, opener, total = os.fspath(path), PACKED.get(Path(path).suffix), 0
    regular(path)
    try:
        most = unpacked_most(path) if opener else sys.maxsize
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
    """The whole text of a UTF-8 file (plain, `.gz` or `.xz`), newlines as they are, without a byte order mark."""
    return as_text(b"".join(read_lines(path)), os.fspath(path))
