"""Reading of bytes, lines and texts from untrusted files, with limits on size.

The readers in this module, in `files/records.py` and in `media/files.py` either return a value of the documented type
within the documented limits, or raise DataError with a message that names the file. Readers never execute code.
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
"""The content of a file (bytes), or the path of a file."""

SMALL, ITEM, LARGE = 2**24, 2**28, 2**32
"""The largest sizes of files in bytes: of a settings file (16 MiB), of a file with one item, such as an image (256
MiB), and of a data file that is read at once (4 GiB)."""


class DataError(ValueError):
    """Raised for data that is missing, damaged or not allowed. The message names the file or the sample."""


def shown(value: Any) -> str:
    """Returns the `repr` of a value, cut to 80 characters, for a message. If `repr` fails, returns the type of the
    value as text."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # such as an integer of thousands of digits
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def regular(path: str | os.PathLike) -> os.stat_result:
    """Returns `os.stat` of a regular file. Raises DataError if the file does not exist, if its status cannot be read,
    or if it is not a regular file but a folder, a pipe or a device (reading a pipe or a device might never end)."""
    name = os.fspath(path)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{name} does not exist") from None
    except (OSError, ValueError) as error:  # a name that is too long or contains invalid characters
        raise DataError(f"{shown(name)} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{name} is {'a folder' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
    return status


def open_regular(path: str | os.PathLike, most: int = sys.maxsize) -> io.BufferedIOBase:
    """Returns a regular file, opened for reading bytes. Raises DataError like `regular`, and if the file cannot be
    opened or has more than `most` bytes."""
    size = regular(path).st_size
    if size > most:
        raise DataError(f"{os.fspath(path)} has {size:,} bytes; possible: up to {most:,}")
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


FILES = 1_000_000
"""The largest number of paths that one pattern may match."""


DEEP = 3
"""The largest number of `**` in a pattern. Every `**` matches folders of any depth."""


def matching(pattern: str) -> list[str]:
    """Returns the sorted paths that match a pattern such as `**/*.txt`. Raises DataError if the pattern has more than
    4,096 characters (the longest path), contains `**` more than `DEEP` times (consecutive `**/` count once), or matches
    more than `FILES` paths."""
    if len(pattern) > 4096:
        raise DataError(f"{shown(pattern)} has {len(pattern):,} characters; a path has 4,096 at most")
    pattern = re.sub(r"(\*\*/+)+", "**/", pattern)
    if pattern.count("**") > DEEP:
        raise DataError(f"{shown(pattern)} contains ** more than {DEEP} times, which takes too long to match")
    paths = list(islice(glob.iglob(pattern, recursive=True), FILES + 1))
    if len(paths) > FILES:
        raise DataError(f"{shown(pattern)} matches more than {FILES:,} paths; name a folder with fewer files")
    return sorted(paths)


def read_bytes(path: str | os.PathLike, most: int = LARGE) -> bytes:
    """Returns the content of a regular file. Bytes that another process appends during the call are not read. Raises
    DataError like `open_regular`, and if the file cannot be read."""
    try:
        with open_regular(path, most) as file:
            return file.read(os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise DataError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def as_text(content: bytes | bytearray, where: str, line: int = 1) -> str:
    """Returns the content of a UTF-8 file as text, without a byte order mark. The arguments and errors are those of
    `utf8`."""
    return utf8(content, where, line).removeprefix("\ufeff")


def utf8(content: bytes | bytearray, where: str, line: int = 1) -> str:
    """Returns UTF-8 bytes as text. Raises DataError if a byte is not UTF-8; the message contains the value, the
    position in `content` and the line of the first such byte. `where` begins the message. `line` is the number of the
    first line of `content`."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(content, where, line, error) from None


def not_utf8(content: bytes | bytearray, where: str, line: int, error: UnicodeDecodeError) -> DataError:
    """Returns the error about the first byte that is not valid UTF-8."""
    line += content.count(b"\n", 0, error.start)
    prefix = f"{where}, line {line}" if where else f"line {line}"
    byte = f"byte {error.start} (0x{content[error.start]:02x})"
    return DataError(f"{prefix}: {byte} is not valid UTF-8 ({error.reason})")


def text_lines(parts: Iterable[bytes], where: str, keepends: bool = True) -> Iterator[str]:
    """Yields the lines of a file as text, without a byte order mark. `parts` are the lines of the file in UTF-8, each
    up to its newline. Every part is split again at all line ends of `str.splitlines`; `keepends` is the argument of
    that method. Raises DataError like `utf8`."""
    for number, part in enumerate(parts, start=1):
        text = utf8(part, where, number)
        yield from (text.removeprefix("\ufeff") if number == 1 else text).splitlines(keepends)


def read_text(path: str | os.PathLike, most: int = SMALL) -> str:
    """Returns the text of a UTF-8 file, newlines unchanged. Raises DataError like `read_bytes` and `utf8`."""
    return as_text(read_bytes(path, most), os.fspath(path))


PACKED: dict[str, Callable] = {".gz": gzip.open, ".tgz": gzip.open, ".xz": lzma.open}
"""The functions that open compressed files, by suffix."""

LONGEST, BLOCK, ALWAYS_UNPACKED = 2**24, 2**20, 2**25
"""The largest size of a line in bytes (16 MiB; as JSON up to 500 MiB of lists), the bytes that are read at a time, and
the bytes to which every compressed file may unpack, however small it is (32 MiB)."""


def unpacked_most(size: int, times: int = 100) -> int:
    """Returns the largest allowed unpacked size, in bytes, of a compressed file of `size` bytes: `times` * `size`, but
    at least `ALWAYS_UNPACKED`. A file with a larger unpacked size is treated as a decompression bomb."""
    return max(times * size, ALWAYS_UNPACKED)


def read_lines(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields the lines of a plain, `.gz`, `.tgz` or `.xz` file, each with its newline. Raises DataError if the file
    cannot be read, has a line longer than `LONGEST` bytes, or if a compressed file unpacks to more than `unpacked_most`
    bytes."""
    for line in _pieces(path, lambda file: file.readline(LONGEST + 1)):
        if len(line) > LONGEST:
            raise DataError(f"{os.fspath(path)} has a line of more than {LONGEST:,} bytes")
        yield line


def read_packed(path: str | os.PathLike) -> bytes:
    """Returns the content of a file (plain, `.gz`, `.tgz` or `.xz`). Raises DataError if the file cannot be read, or if
    a compressed file unpacks to more than 100 times its size (see `unpacked_most`)."""
    return b"".join(_pieces(path, lambda file: file.read(BLOCK)))


def read_packed_text(path: str | os.PathLike) -> str:
    """Returns the text of a UTF-8 file (plain, `.gz`, `.tgz` or `.xz`) without a byte order mark. Newlines are not
    changed. Lines may have any length. Raises DataError if the file cannot be read, is not UTF-8, or if a compressed
    file unpacks to more than 25 times its size (see `unpacked_most`)."""
    content = bytearray()
    for block in _pieces(path, lambda file: file.read(BLOCK), times=25):  # a byte may take four bytes as text
        content += block
    return as_text(content, os.fspath(path))


def _pieces(path: str | os.PathLike, read: Callable[[Any], bytes], times: int = 100) -> Iterator[bytes]:
    """Yields the results of `read(file)`, for the open file, until a result is empty. `times` is the argument of
    `unpacked_most`. Raises DataError if the file cannot be read, or if a compressed file unpacks to more than
    `unpacked_most` bytes."""
    name, opener, total = os.fspath(path), PACKED.get(Path(path).suffix), 0
    regular(path)
    try:
        most = unpacked_most(os.path.getsize(path), times) if opener else sys.maxsize
        with (opener or open)(path, "rb") as file:
            while piece := read(file):
                total += len(piece)
                if total > most:
                    raise DataError(f"{name} unpacks to more than {most:,} bytes; unpack it yourself to read it")
                yield piece
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {error or type(error).__name__}") from error
