"""Fingerprints of data: a SHA-256 over values and files. The hash changes whenever a value or file changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..files.reading import DataError

VERSION = 2
"""The version of the fingerprints. It must be increased whenever the fingerprint of unchanged data changes, by this
file or by a class of samples: a run of an older version then says so, instead of that its data changed."""
CONTENT_LIMIT = 200 * 2**20
"""Files of at most this size in bytes (200 MiB) are hashed by name and content, larger files by name, size and
modification time."""


class Fingerprint:
    """A SHA-256 over all added values, in order: `Fingerprint("keys", keys).add(labels).hex`. Files of at most
    CONTENT_LIMIT bytes are hashed by name and content, larger files by name, size and modification time; with
    `contents=False`, this applies to all files that are not empty."""

    def __init__(self, *values: Any, contents: bool = True):
        self._hash, self.contents = hashlib.sha256(), contents
        self.add(*values)

    @property
    def hex(self) -> str:
        """The hash (hex) of all values added so far."""
        return self._hash.hexdigest()

    def add(self, *values: Any) -> Fingerprint:
        """Adds values to the hash, and returns the object itself. Values are numbers, texts, bytes, arrays, tensors,
        pictures, file paths, and lists, tuples, sets and mappings of these. For any other object, only the name of its
        type is added. Raises DataError if a file cannot be read."""
        for value in values:
            self._add(value)
        return self

    def _add(self, value: Any) -> None:
        if isinstance(value, Mapping):
            self._part(b"mapping", str(len(value)).encode())
            for key in value:
                self.add(key, value[key])
        elif isinstance(value, list | tuple | range):
            self._part(b"list", str(len(value)).encode())
            self.add(*value)
        elif isinstance(value, set | frozenset):
            self.add("set", sorted(Fingerprint(element, contents=self.contents).hex for element in value))
        elif isinstance(value, os.PathLike):
            self._part(b"file", file_fingerprint(Path(value), CONTENT_LIMIT if self.contents else 0).encode())
        elif isinstance(value, str):
            self._part(b"text", value.encode(errors="surrogatepass"))
        elif isinstance(value, bytes | bytearray):
            self._part(b"bytes", bytes(value))
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:  # its bytes are memory addresses
            self.add("objects", value.shape, value.tolist())
        elif isinstance(value, np.ndarray | np.generic | Tensor):
            array = np.ascontiguousarray(value)
            self._part(b"array", f"{array.dtype} {array.shape}".encode() + array.tobytes())
        elif isinstance(value, Image.Image):
            self._part(b"picture", f"{value.mode} {value.size}".encode() + value.tobytes())
            if palette := value.getpalette():
                self.add("palette", palette)
        else:
            # the repr of other objects can contain their memory address, which differs in every process
            plain = value is None or isinstance(value, bool | int | float | complex)
            self._part(type(value).__name__.encode(), repr(value).encode() if plain else b"")

    def _part(self, kind: bytes, content: bytes) -> None:
        self._hash.update(kind + len(content).to_bytes(8, "little") + content)


def file_fingerprint(path: Path, limit: int | None = None) -> str:
    """Returns the name of a file and the SHA-256 (hex) of its content. For a file of more than `limit` bytes (None:
    CONTENT_LIMIT), returns the name, the size in bytes and the modification time in nanoseconds. For a path that is not
    a regular file, returns the name and "missing". Raises DataError if the file cannot be read."""
    if not os.path.isfile(path):
        return f"{path.name} missing"
    stat = path.stat()
    try:
        if stat.st_size > (CONTENT_LIMIT if limit is None else limit):
            return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"
        with open(path, "rb") as file:
            return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def hash_files(paths: Iterable[Path]) -> str:
    """Returns a SHA-256 (hex) over the results of `file_fingerprint`, in order. Raises DataError if a file does not
    exist or cannot be read."""
    fingerprint = Fingerprint()
    for path in paths:
        if not os.path.exists(path):
            raise DataError(f"{path} does not exist")
        fingerprint.add(file_fingerprint(path))
    return fingerprint.hex
