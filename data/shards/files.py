"""Tar files, local or remote: finding, opening and unpacking them, and the place of each of their members."""

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

from ...tokenizers.files.reading import PACKED, SMALL, DataError, matching, unpacked_most
from ...tokenizers.files.trust import is_remote, parse_address
from ...tokenizers.files.writing import partial_name, sweep_partials

DAMAGED = "damaged"
"""The key that takes the place of a sample's extensions; its value is the reason why neither this sample nor what
follows in its shard can be read."""
PART = 2**20
"""Bytes that are unpacked at a time."""
MOST_SHARDS = 100_000
"""Shards that one pattern may name."""


def expand(pattern: str) -> list[str]:
    """The paths of the shards behind `train-{000..009}.tar` (ten), `train-*.tar` or one path or address, in order.
    Raises DataError for a wrong range and where a pattern matches no file."""
    if found := re.fullmatch(r"([^{}]*)\{([^{}]*)\.\.([^{}]*)\}([^{}]*)", pattern):
        start, first, last, end = found.groups()
        if not re.fullmatch(r"[0-9]{1,9}", first) or not re.fullmatch(r"[0-9]{1,9}", last):
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must be two whole numbers, such as {{000..009}}")
        if not 0 <= int(last) - int(first) < MOST_SHARDS:
            raise DataError(f"{pattern!r}: {{{first}..{last}}} must rise, over {MOST_SHARDS:,} shards at most")
        return [f"{start}{n:0{len(first)}}{end}" for n in range(int(first), int(last) + 1)]
    if is_remote(pattern):
        return [pattern]
    found = matching(os.path.expanduser(pattern))
    if not found:
        raise DataError(f"no shard at {pattern!r} (from the folder {os.getcwd()})")
    return found


def open_file(path: str) -> Any:
    """A local or remote (`s3://...`) file, opened for reading bytes at any offset. The file system is chosen here, so
    that fsspec parses no address. Raises DataError for a protocol that is not supported or whose library is missing,
    and for a remote file that does not exist."""
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
    """JSON that changes when a remote file is replaced, as far as its storage tells: size, date, tag, checksum."""
    with open_file(path) as file:
        told = file.fs.info(path) if hasattr(file, "fs") else {}
    kept = {key: str(value) for key, value in told.items() if key.lower().replace("-", "").replace("_", "") in TOLD}
    return json.dumps(kept, sort_keys=True)


TOLD = {"size", "etag", "mtime", "created", "lastmodified", "updated", "md5hash", "versionid"}
"""Keys of fsspec's `info`, without `-` and `_`, that change with a file."""


def unpacked(path: str, target: Path) -> str:
    """Unpack a compressed shard to the plain tar file `target`, up to where it is cut short, and give that path. Raises
    DataError if it is damaged or empty, or unpacks to more than `unpacked_most` allows."""
    partial, size = partial_name(target), 0
    sweep_partials(target)
    try:
        with (
            open_file(path) as raw,
            PACKED[Path(path).suffix](raw) as source,
            open(partial, "wb") as file,
            suppress(EOFError),  # cut short: what is there is kept, and the index finds the end missing
        ):
            most = unpacked_most(raw.size or 0 if is_remote(path) else os.path.getsize(path))
            while part := source.read1(PART):
                size += file.write(part)
                if size > most:
                    raise OSError(f"it unpacks to more than {most:,} bytes; unpack it yourself if that is meant")
        if not partial.stat().st_size:
            raise EOFError("it is empty")
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be unpacked, it is damaged or cut short: {error}") from error
    os.replace(partial, target)
    return str(target)


WORDS = 100
"""The most words of a tar file's global header."""


class Headers:
    """A tar file from which only headers are read, so never more than SMALL bytes at once, whatever sizes it claims."""

    def __init__(self, file: Any):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int) -> bytes:
        """`size` bytes, or fewer at the end. Raises ReadError for more than any header has."""
        if size > SMALL:
            raise tarfile.ReadError(f"a header says that it has {size:,} bytes")
        return self.file.read(size)


def members(source: str, path: str) -> Iterator[tuple[str, dict]]:
    """(key, {extension: (offset, size)}) of each sample: neighbouring members with one name up to the first dot.
    `source` is the plain tar file, `path` the shard that messages name. Where it is damaged or cut short the last pair
    is (key, {DAMAGED: why}). Raises DataError where not even the first member can be found."""
    key, found = None, {}
    try:
        with open_file(source) as file, tarfile.open(fileobj=Headers(file), mode="r:") as tar:
            size = file.seek(0, os.SEEK_END)
            for member in tar:
                if len(tar.pax_headers) > WORDS:  # which tarfile copies for every member
                    raise ValueError(f"its global header has more than {WORDS} words")
                if not member.isfile():
                    continue
                named = member.name.encode(errors="backslashreplace").decode()  # in some bytes that are no UTF-8
                folder, _, name = named.rpartition("/")
                stem, _, extension = name.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key and found:
                    yield key, found
                    found = {}
                key = own
                if member.size < 0:  # as a pax header may say
                    raise ValueError(f"a member of {member.size} bytes")
                if member.offset_data + member.size > size:
                    break
                found[extension.lower()] = (member.offset_data, member.size)
            file.seek(tar.offset)  # tarfile takes a header that is damaged or cut off for the end
            whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
        wrong = None if whole else "its end is missing"
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:  # of sizes below 0, many headers
        if key is None:
            raise DataError(f"{path} is damaged or cut short: {error}") from error
        wrong = str(error)
    if wrong is None and found:
        yield key, found
    elif wrong is not None:  # the last sample may lack members
        yield f"{key} and what follows", {DAMAGED: f"{path} is damaged or cut short after {key!r}: {wrong}"}
