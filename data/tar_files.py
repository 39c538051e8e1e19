"""Local and remote tar files (shards): their paths, and the positions of the files in them (members)."""

from __future__ import annotations

import json
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files.reading import PACKED, SMALL, DataError, matching, unpacked_most
from ..files.trust import is_remote, parse_address
from ..files.writing import partial_name, sweep_partials

DAMAGED = "damaged"
"""The key that replaces the extensions of a sample if this sample and the rest of its shard cannot be read. Its value
is the reason."""
PART = 2**20
"""The number of bytes that are unpacked at a time."""
MOST_SHARDS = 100_000
"""The maximum number of shards in one pattern."""


def expand(pattern: str) -> list[str]:
    """Returns the paths or addresses of the shards of a pattern, in order. A pattern is `train-{000..009}.tar` (ten
    shards), `train-*.tar`, a path, or an address. Raises DataError if the range in braces is not two ascending integers
    or has more than MOST_SHARDS shards, or if a local pattern matches no file."""
    if match := re.fullmatch(r"([^{}]*)\{([^{}]*)\.\.([^{}]*)\}([^{}]*)", pattern):
        start, first, last, end = match.groups()
        if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,9}", last):
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be two integers, such as {{000..009}}")
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be ascending, with at most {MOST_SHARDS:,} shards")
        return [f"{start}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]
    if is_remote(pattern):
        return [pattern]
    paths = matching(os.path.expanduser(pattern))
    if not paths:
        raise DataError(f"no shard at {pattern!r} (relative to the folder {os.getcwd()})")
    return paths


def open_file(path: str) -> Any:
    """Returns an open local or remote (`s3://...`) file, for reading bytes at any offset. The file system is selected
    here by the protocol, so fsspec does not interpret the address itself. For a remote file, raises DataError if the
    protocol is not supported, its library is missing, or the file does not exist."""
    if not is_remote(path):
        return open(path, "rb")
    protocol = parse_address(path).protocol
    import fsspec

    try:
        return fsspec.filesystem(protocol).open(path, "rb")
    except (ImportError, ValueError) as error:  # "Install s3fs to access S3"
        raise DataError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def version(path: str) -> str:
    """Returns a JSON text that changes when a remote file is replaced. It contains the metadata that the storage
    provides: size, date, tag, checksum."""
    with open_file(path) as file:
        info = file.fs.info(path) if hasattr(file, "fs") else {}
    kept = {key: str(value) for key, value in info.items() if key.lower().replace("-", "").replace("_", "") in METADATA}
    return json.dumps(kept, sort_keys=True)


METADATA = {"size", "etag", "mtime", "created", "lastmodified", "updated", "md5hash", "versionid"}
"""Keys of fsspec's `info`, without `-` and `_`, whose values change when a file changes."""


def unpacked(path: str, target: Path) -> str:
    """Unpacks a compressed shard to the tar file `target`, and returns the path of `target`. Of a shard that is cut
    short, the part before its end is unpacked. Raises DataError if the shard is damaged, is empty, or unpacks to more
    bytes than `unpacked_most` allows."""
    partial, size = partial_name(target), 0
    sweep_partials(target)
    try:
        with (
            open_file(path) as raw,
            PACKED[Path(path).suffix](raw) as source,
            open(partial, "wb") as file,
            suppress(EOFError),  # cut short: the first part is kept, and the index reports that the end is missing
        ):
            most = unpacked_most(raw.size or 0 if is_remote(path) else os.path.getsize(path))
            while part := source.read1(PART):
                size += file.write(part)
                if size > most:
                    partial.unlink(missing_ok=True)
                    raise DataError(f"{path} was not unpacked: its content has more than {most:,} bytes, as that of a "
                                    "decompression bomb. If you trust the file, unpack it yourself")  # fmt: skip
        if not partial.stat().st_size:
            raise EOFError("it is empty")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be unpacked, it is damaged or cut short: {error}") from error
    os.replace(partial, target)
    return str(target)


DIGITS = 255
"""The maximum number of digits of a number in a long header of a tar file."""
NUMBER = re.compile(rb"[0-9]{%d}" % (DIGITS + 1))
WORDS = 100
"""The maximum number of words in the global header of a tar file."""


class Headers:
    """A tar file from which only headers are read. One call reads at most SMALL bytes, even if a header claims a larger
    size."""

    def __init__(self, file: Any):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """Returns `size` bytes, or fewer at the end. Raises ReadError if `size` is negative or larger than SMALL, or if
        a long header has a number of more than DIGITS digits, which `tarfile` would take long to read."""
        if not 0 <= size <= SMALL:
            raise tarfile.ReadError(f"a header claims a size of {size:,} bytes")
        content = self.file.read(size)
        if size > tarfile.BLOCKSIZE and NUMBER.search(content):
            raise tarfile.ReadError(f"a header has a number of more than {DIGITS} digits")
        return content


def members(source: str, path: str) -> Iterator[tuple[str, dict]]:
    """Yields (key, {extension: (offset, size)}) for each sample; offset and size are in bytes. A sample consists of
    adjacent members with the same path up to the first dot of the file name. `source` is the uncompressed tar file,
    `path` is the shard, for messages. If the file is damaged or cut short, the last pair is (key, {DAMAGED: reason}).
    Raises DataError if the first member cannot be read."""
    key, parts = None, {}
    try:
        with open_file(source) as file, tarfile.open(fileobj=Headers(file), mode="r:") as tar:
            size, before = file.seek(0, os.SEEK_END), -1
            for member in tar:
                is_negative, before = member.size < 0 or tar.offset <= before, tar.offset
                if len(tar.pax_headers) > WORDS:  # tarfile copies them for every member
                    raise ValueError(f"its global header has more than {WORDS} words")
                if not member.isfile() and not is_negative:
                    continue
                path_inside = member.name.encode(errors="backslashreplace").decode()  # it may be invalid UTF-8
                folder, _, name = path_inside.rpartition("/")
                stem, _, extension = name.partition(".")
                member_key = f"{folder}/{stem}" if folder else stem
                if member_key != key and parts:
                    yield key, parts
                    parts = {}
                key = member_key
                if is_negative:  # possible in a pax header, and in a header of an unknown type
                    raise ValueError(f"a member of {member.size} bytes")
                if member.issparse():
                    raise ValueError("it has a sparse member; pack it without --sparse")
                if member.offset_data + member.size > size:
                    break
                parts[extension.lower()] = (member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile treats a damaged or incomplete header as the end
            complete = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
        problem = None if complete else "its end is missing"
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:  # negative size, many headers
        if key is None:
            raise DataError(f"{path} is damaged or cut short: {error}") from error
        problem = str(error)
    if problem is None and parts:
        yield key, parts
    elif problem is not None:  # the last sample may lack members
        yield f"{key} and what follows", {DAMAGED: f"{path} is damaged or cut short after {key!r}: {problem}"}
