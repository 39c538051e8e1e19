"""Token files: a split of a corpus as one array of ids on disk, written once and read by every run.

    8 bytes            MAGIC
    to byte 4096       a JSON header, filled up with spaces
    from byte 4096     the ids, uint16 or uint32 (little-endian), document after document, each after its start token
    then, aligned      int64 (little-endian, from a multiple of 8 bytes), where in the ids each document starts

The documents "ab" and "c", as bytes with the start token 256: the ids 256 97 98 256 99, the starts 0 3.
A file is written under a temporary name and renamed when it is whole, so a name that exists is a file that is whole.
"""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ...tokenizers.files.reading import DataError
from ...tokenizers.files.records import Record, as_record

MAGIC, VERSION, HEADER = b"CHOPTOKS", 2, 4096


class Header(Record):
    """The JSON header of a token file: `tokens` and `documents` are counts, `encoding` is a name and `vocabulary` a
    number of ids."""

    version: int
    integers: Literal["uint16", "uint32"]
    tokens: Annotated[int, Field(ge=0, lt=2**48)]
    documents: Annotated[int, Field(ge=0, lt=2**40)]
    bytes: Annotated[int, Field(ge=0)]
    """Of the text, as UTF-8."""
    encoding: str
    fingerprint: str
    """That of the encoding."""
    vocabulary: Annotated[int, Field(ge=1)]
    dataset: str
    split: str
    source: str
    """The hash of the dataset, its options, the split and its text."""


class OnDisk:
    """An array of `count` numbers from byte `offset` of a file on, read from disk where it is sliced: `ids[10:20]`, a
    slice without a step.

    Not mapped into memory: where a mapped file is cut short meanwhile, reading it kills the process; here DataError is
    raised. The file stays open, so that another one under its name changes nothing.
    """

    def __init__(self, path: str | os.PathLike, dtype: np.dtype, offset: int, count: int):
        self.path, self.dtype, self.offset, self.count = path, dtype, offset, count
        self.handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(self.count)
        size = max(last - first, 0) * self.dtype.itemsize
        found = bytearray()
        while len(found) < size:
            place = self.offset + first * self.dtype.itemsize + len(found)
            more = os.pread(self.handle, size - len(found), place)
            if not more:
                raise DataError(f"{self.path} was cut short while it was being read")
            found += more
        return np.frombuffer(found, self.dtype)


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open token file."""

    path: Path
    header: Header
    ids: OnDisk
    """All ids, one document after another."""
    starts: np.ndarray
    """Where in `ids` each document begins, at its start token."""

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Open a file. Raises DataError when it is missing, cut short, of another version, or no token file at all."""
        try:
            header = _read_header(path)
            found = os.path.getsize(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        size = header.tokens * np.dtype(header.integers).itemsize
        places = HEADER + size + -size % 8
        expected = places + 8 * header.documents
        if found != expected:
            what = "cut short" if found < expected else "too long"
            raise DataError(f"{path} is {what}: {found} bytes instead of {expected}; delete it and start again")
        ids = OnDisk(path, np.dtype(header.integers).newbyteorder("<"), HEADER, header.tokens)
        return cls(Path(path), header, ids, OnDisk(path, np.dtype("<i8"), places, header.documents)[:])

    def __reduce__(self):
        return TokenFile.open, (self.path,)  # pickled by its path: another process opens the file

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of the text behind the ids: the divisor of bits per byte."""
        return self.header.bytes

    def document(self, number: int) -> np.ndarray:
        """The ids of one document, numbered from 0, its start token first."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[number] : end]


def _read_header(path: Path) -> Header:
    """The header of a file. Raises OSError, and DataError for another kind of file or a damaged one."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if not head.startswith(MAGIC):
        raise DataError(f"{path} is not a token file: it begins with {head[:8]!r} instead of {MAGIC!r}")
    if len(head) < HEADER:
        raise DataError(f"{path} is cut short: {len(head)} bytes do not even hold its header")
    header = as_record(head[len(MAGIC) :].rstrip(), Header, f"{path}: damaged header")
    if header.version != VERSION:
        raise DataError(f"{path} has version {header.version}; this program reads version {VERSION}; delete it")
    return header
