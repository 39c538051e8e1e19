"""Reading files of any origin: their bytes, lines and texts, within bounds.

The readers here, in `files/records.py` and in `media/files.py` either give a value of the type and within the bounds
that were asked for, or raise DataError with one sentence that names the file. Nothing in a file is ever executed.
"""

from __future__ import annotations

import glob
import gzip
import io
import lzma
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

Source = bytes | str | os.PathLike
"""A file's content (bytes), or its path."""

SMALL, ITEM, LARGE = 2**24, 2**28, 2**32
"""The most bytes of a file of settings (16 MiB), of a file that holds one item, such as a picture (256 MiB), and of a
data file that is read as a whole (4 GiB)."""


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
        raise DataError(f"{shown(named)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(told.st_mode):
        raise DataError(f"{named} is {'a folder' if stat.S_ISDIR(told.st_mode) else 'no regular file'}")
    return told


def open_regular(path: str | os.PathLike, most: int = sys.maxsize) -> io.BufferedIOBase:
    """A regular file, open for reading. Raises DataError as `regular`, where it cannot be opened, or has more than
    `most` bytes."""
    size = regular(path).st_size
    if size > most:
        raise DataError(f"{os.fspath(path)} has {size:,} bytes, more than the {most:,} that are read")
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


FILES = 1_000_000
"""The most paths that one pattern may match."""


DEEP = 3
"""How often a pattern may have `**`: each can match the folders of every depth."""


def matching(pattern: str) -> list[str]:
    """The paths that a pattern such as `**/*.txt` matches, sorted. Raises DataError for a pattern that is longer than a
    path, has `**` more than `DEEP` times, or matches more than `FILES` paths, as `/**/*` does."""
    if len(pattern) > 4096:
        raise DataError(f"{shown(pattern)} has {len(pattern):,} characters; a path has 4,096 at most")
    pattern = re.sub(r"(\*\*/+)+", "**/", pattern)
    if pattern.count("**") > DEEP:
        raise DataError(f"{shown(pattern)} has ** more than {DEEP} times, which matches in very many ways")
    found = list(islice(glob.iglob(pattern, recursive=True), FILES + 1))
    if len(found) > FILES:
        raise DataError(f"{shown(pattern)} matches more than {FILES:,} paths; name a folder with fewer files")
    return sorted(found)


def read_bytes(path: str | os.PathLike, most: int = LARGE) -> bytes:
    """A regular file's content, up to its length at the call: a run may be adding to it. Raises DataError where there
    is none, it cannot be read, or has more than `most` bytes."""
    try:
        with open_regular(path, most) as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def as_text(content: bytes | bytearray, where: str, line: int = 1) -> str:
    """A UTF-8 file's content as text, without a byte order mark. Raises DataError as `utf8` does."""
    return utf8(content, where, line).removeprefix("\ufeff")


def utf8(content: bytes | bytearray, where: str, line: int = 1) -> str:
    """UTF-8 bytes as text. Raises DataError naming the first byte that is not UTF-8 and its line; `line` is the number
    of the first line of `content`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        place = f"{where}, line {line}" if where else f"line {line}"
        byte = f"byte {error.start} (0x{content[error.start]:02x})"
        raise DataError(f"{place}: {byte} is not valid UTF-8 ({error.reason})") from None


def text_lines(parts: Iterable[bytes], where: str, keepends: bool = True) -> Iterator[str]:
    """UTF-8 lines, each up to its newline, as text without a byte order mark, cut where `str.splitlines` cuts. Raises
    DataError as `utf8`."""
    for number, part in enumerate(parts, start=1):
        text = utf8(part, where, number)
        yield from (text.removeprefix("\ufeff") if number == 1 else text).splitlines(keepends)


def read_text(path: str | os.PathLike, most: int = SMALL) -> str:
    """The text of a UTF-8 file, newlines unchanged. Raises DataError as `read_bytes` and `utf8` do."""
    return as_text(read_bytes(path, most), os.fspath(path))


PACKED: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
"""What opens a compressed file, by its suffix."""

LONGEST, BLOCK, LEAST = 2**24, 2**20, 2**25
"""The most bytes of a line (16 MiB; of JSON they become up to 500 MiB of lists), the bytes that are read at a time, and
the bytes to which every compressed file may unpack, however small it is (32 MiB)."""


def unpacked_most(size: int, times: int = 100) -> int:
    """The most bytes that a compressed file of `size` bytes may unpack to: `times` its size, at least `LEAST`. A file
    that unpacks to more is a decompression bomb."""
    return max(times * size, LEAST)


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """The lines of a plain, `.gz`, `.tgz` or `.xz` file, each with its newline, one by one. Raises DataError for a file
    that cannot be read, a line longer than `LONGEST`, and a file that unpacks to more than `unpacked_most`."""
    for line in _pieces(path, lambda file: file.readline(LONGEST + 1)):
        if len(line) > LONGEST:
            raise DataError(f"{os.fspath(path)} has a line of more than {LONGEST:,} bytes")
        yield line


def read_packed_text(path: str | os.PathLike) -> str:
    """The text of a UTF-8 file (plain, `.gz`, `.tgz` or `.xz`), newlines unchanged, without a byte order mark. Raises
    DataError as `read_lines` and `utf8` do; its lines may have any length."""
    content = bytearray()
    for block in _pieces(path, lambda file: file.read(BLOCK), times=25):  # as text a byte may take four
        content += block
    return as_text(content, os.fspath(path))


def _pieces(path: str | os.PathLike, read: Callable[[Any], bytes], times: int = 100) -> Iterator[bytes]:
    """What `read` gives of an open file until it gives nothing. Raises DataError as `read_lines` does; `times` as in
    `unpacked_most`."""
    named, opener, total = os.fspath(path), PACKED.get(Path(path).suffix), 0
    regular(path)
    try:
        most = unpacked_most(os.path.getsize(path), times) if opener else sys.maxsize
        with (opener or open)(path, "rb") as file:
            while piece := read(file):
                total += len(piece)
                if total > most:
                    raise DataError(f"{named} unpacks to more than {most:,} bytes; unpack it yourself if that is meant")
                yield piece
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{named} cannot be read: {error or type(error).__name__}") from error
