"""Fingerprints of data: one sha256 over values of any kind, and over files, that changes whenever they do."""

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

WHOLE = 200 * 2**20
"""Bytes (200 MiB) up to which a file is hashed by name and contents; larger ones by name, size and time of change."""


class Fingerprint:
    """A sha256 over whatever is added, in order: `Fingerprint("keys", keys).add(labels).hex`. Of files name and
    contents count (see WHOLE), or, without `contents`, name, size and time of change."""

    def __init__(self, *values: Any, contents: bool = True):
        self._hash, self.contents = hashlib.sha256(), contents
        self.add(*values)

    @property
    def hex(self) -> str:
        """The hash so far."""
        return self._hash.hexdigest()

    def add(self, *values: Any) -> Fingerprint:
        """Add numbers, texts, bytes, arrays, tensors, pictures, paths of files, and lists, tuples, sets and mappings of
        these; of any other object only its type counts. Raises DataError for a file that cannot be read."""
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
            self.add("set", sorted(Fingerprint(each, contents=self.contents).hex for each in value))
        elif isinstance(value, os.PathLike):
            self._part(b"file", file_fingerprint(Path(value), WHOLE if self.contents else 0).encode())
        elif isinstance(value, str):
            self._part(b"text", value.encode(errors="surrogatepass"))
        elif isinstance(value, bytes | bytearray):
            self._part(b"bytes", bytes(value))
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:  # their bytes would be addresses in memory
            self.add("objects", value.shape, value.tolist())
        elif isinstance(value, np.ndarray | np.generic | Tensor):
            array = np.ascontiguousarray(value)
            self._part(b"array", f"{array.dtype} {array.shape}".encode() + array.tobytes())
        elif isinstance(value, Image.Image):
            self._part(b"picture", f"{value.mode} {value.size}".encode() + value.tobytes())
            if palette := value.getpalette():
                self.add("palette", palette)
        else:
            # the repr of other objects may hold their address in memory, which differs in every process
            plain = value is None or isinstance(value, bool | int | float | complex)
            self._part(type(value).__name__.encode(), repr(value).encode() if plain else b"")

    def _part(self, kind: bytes, content: bytes) -> None:
        self._hash.update(kind + len(content).to_bytes(8, "little") + content)


def file_fingerprint(path: Path, whole: int | None = None) -> str:
    """A file's name with the sha256 of its contents (hex), or, beyond `whole` bytes (None: WHOLE), with its size in
    bytes and time of change in nanoseconds; with "missing" where there is no file, or no regular one (a pipe). Raises
    DataError for one that cannot be read."""
    if not os.path.isfile(path):
        return f"{path.name} missing"
    told = path.stat()
    try:
        if told.st_size > (WHOLE if whole is None else whole):
            return f"{path.name} {told.st_size} {told.st_mtime_ns}"
        with open(path, "rb") as file:
            return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def hash_files(paths: Iterable[Path]) -> str:
    """A sha256 (hex) over the fingerprints of files, in order. Raises DataError naming a file that is missing or cannot
    be read."""
    found = Fingerprint()
    for path in paths:
        if not os.path.exists(path):
            raise DataError(f"{path} does not exist")
        found.add(file_fingerprint(path))
    return found.hex
