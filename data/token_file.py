"""Token files: the ids of the documents of a text corpus, and where each document starts."""

from __future__ import annotations

import os
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ..files.reading import DataError
from ..files.records import Record, as_record

MAGIC, VERSION, HEADER = b"CHOPTOKS", 2, 4096


class Header(Record):
    """The JSON header of a token file. `tokens` and `documents` are counts, `encoding` is the name of the encoding, and
    `vocabulary` is the number of its ids."""

    version: int
    integers: Literal["uint16", "uint32"]
    tokens: Annotated[int, Field(ge=0, lt=2**48)]
    documents: Annotated[int, Field(ge=0, lt=2**40)]
    bytes: Annotated[int, Field(ge=0)]
    """The size of the text in UTF-8."""
    encoding: str
    fingerprint: str
    """The fingerprint of the encoding."""
    vocabulary: Annotated[int, Field(ge=1)]
    dataset: str
    split: str
    source: str
    """The hash (`source_digest`) of the data set, its options, the split and its text."""
    last: bool = True
    """Whether this is the last file of the split."""


class OnDisk:
    """An array of `count` numbers that starts at byte `offset` of a file. A slice without a step, such as `ids[10:20]`,
    reads its values from disk; other kinds of indexing are not supported.

    The file is not mapped into memory: if a mapped file is truncated, reading it kills the process, whereas this class
    raises DataError. The file remains open, so a new file under the same name does not affect this array.
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
        content = bytearray()
        while len(content) < size:
            position = self.offset + first * self.dtype.itemsize + len(content)
            more = os.pread(self.handle, size - len(content), position)
            if not more:
                raise DataError(f"{self.path} was cut short while it was being read")
            content += more
        return np.frombuffer(content, self.dtype)


@dataclass(frozen=True, eq=False)
class TokenFile:
    """An open token file, which holds complete documents."""

    path: Path
    header: Header
    ids: OnDisk
    """The ids of all documents, concatenated."""
    starts: np.ndarray
    """The index in `ids` of the start token of each document."""

    @classmethod
    def open(cls, path: Path) -> TokenFile:
        """Opens a token file. Raises DataError if it cannot be read, is too short or too long for its header, has
        another version, or is not a token file."""
        try:
            header = _read_header(path)
            size = os.path.getsize(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        ids_size = header.tokens * np.dtype(header.integers).itemsize
        starts_offset = HEADER + ids_size + -ids_size % 8
        expected = starts_offset + 8 * header.documents
        if size != expected:
            problem = "cut short" if size < expected else "too long"
            raise DataError(f"{path} is {problem}: {size} bytes instead of {expected}; delete it and start again")
        ids = OnDisk(path, np.dtype(header.integers).newbyteorder("<"), HEADER, header.tokens)
        return cls(Path(path), header, ids, OnDisk(path, np.dtype("<i8"), starts_offset, header.documents)[:])


def _read_header(path: Path) -> Header:
    """Returns the header of a token file. Raises OSError if the file cannot be opened, and DataError if it has another
    version, is damaged, or is not a token file."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if not head.startswith(MAGIC):
        raise DataError(f"{path} is not a token file: it begins with {head[:8]!r} instead of {MAGIC!r}")
    if len(head) < HEADER:
        raise DataError(f"{path} is cut short: {len(head)} bytes are too few for its header")
    header = as_record(head[len(MAGIC) :].rstrip(), Header, f"{path}: damaged header")
    if header.version != VERSION:
        raise DataError(f"{path} has version {header.version}; this program reads version {VERSION}; delete it")
    return header


class Concatenated:
    """The ids of several files, one after another. Only slices without a step are supported, as in `OnDisk`."""

    def __init__(self, parts: Sequence[OnDisk]):
        self.parts, self.ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, part: slice) -> np.ndarray:
        first, last, _ = part.indices(len(self))
        number = bisect_right(self.ends, first)
        pieces = []
        while first < last:
            begin, end = self.ends[number] - len(self.parts[number]), min(last, self.ends[number])
            pieces.append(self.parts[number][first - begin : end - begin])
            first, number = end, number + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, self.parts[0].dtype), *pieces])


@dataclass(frozen=True, eq=False)
class TokenFiles:
    """The token files of one split: `train.tokens`, `train.1.tokens`, `train.2.tokens`, ... Raises DataError from
    `open` if a file is missing or damaged."""

    files: Sequence[TokenFile]

    @classmethod
    def open(cls, folder: Path, split: str) -> TokenFiles:
        """Opens all token files of a split."""
        files = [TokenFile.open(shard_path(folder, split, 0))]
        while not files[-1].header.last:
            files.append(TokenFile.open(shard_path(folder, split, len(files))))
        return cls(files)

    def __reduce__(self):
        path = self.files[0].path  # only the path is pickled: the other process opens the files
        return TokenFiles.open, (path.parent, path.name.removesuffix(".tokens"))

    @cached_property
    def header(self) -> Header:
        """The header of the first file, with the sums of the counts of all files."""
        headers = [file.header for file in self.files]
        sums = {name: sum(getattr(header, name) for header in headers) for name in ("tokens", "documents", "bytes")}
        return headers[0].model_copy(update=sums)

    @cached_property
    def ids(self) -> OnDisk | Concatenated:
        """The ids of all documents, concatenated."""
        return self.files[0].ids if len(self.files) == 1 else Concatenated([file.ids for file in self.files])

    @cached_property
    def starts(self) -> np.ndarray:
        """The index in `ids` of the start token of each document."""
        before = [0, *accumulate(file.header.tokens for file in self.files)]
        return np.concatenate([file.starts + start for file, start in zip(self.files, before)])

    @property
    def bytes(self) -> int:
        """The size of the text in UTF-8 bytes: the divisor of bits per byte."""
        return self.header.bytes

    def document(self, number: int) -> np.ndarray:
        """Returns the ids of one document (numbered from 0), including its start token."""
        end = self.starts[number + 1] if number + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[number] : end]


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Returns the path of a token file: `train.tokens` for number 0, else `train.1.tokens`."""
    return Path(folder) / f"{split}{f'.{number}' if number else ''}.tokens"
