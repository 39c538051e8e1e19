"""A file of codes, the ids that a trained run assigns to items. Codes are computed once; all later processes read the
file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...files.reading import DataError
from ...files.records import partial_tensors, read_tensors
from ...files.writing import lock, make_folder, open_for_append, sweep_partials


@dataclass
class CodeFile:
    """The codes of items, indexed by a hash of the item's content.

    The safetensors file at `path` (None: no file, memory only) holds three tensors. `keys` (n, 16) is the hash of each
    item. `ids` (n, length) holds the codes of each item. `raw` (m, 32) holds, for raw values, the key of the raw value
    and the key of its decoded item; a raw value with an entry need not be decoded again. New entries are kept in memory
    until `save`."""

    path: Path | None
    length: int
    """The number of codes of each item."""
    codes: int
    """The number of possible codes: every code is from 0 to `codes` - 1."""
    table: tuple[dict[bytes, int], np.ndarray] = field(init=False)
    """(row of `ids` by key, ids (n, length)). The tuple is replaced in one assignment, because other threads may read
    it."""
    new: dict[bytes, list[int]] = field(default_factory=dict)
    raw: dict[bytes, bytes] = field(default_factory=dict)
    new_raw: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.table = {}, np.zeros((0, self.length), dtype=np.int32)
        if self.path is not None:
            sweep_partials(self.path)
        self._read()

    @property
    def rows(self) -> dict[bytes, int]:
        """The row of each saved item, by key."""
        return self.table[0]

    @property
    def ids(self) -> np.ndarray:
        """The codes of every saved item, (n, length)."""
        return self.table[1]

    def _read(self) -> None:
        """Adds the entries of the file, if it exists and is not damaged."""
        if self.path is not None and os.path.isfile(self.path):
            with suppress(DataError):  # the codes of a damaged file are computed again
                self._merge(read_tensors(self.path))

    def _merge(self, tensors: dict[str, torch.Tensor]) -> None:
        """Adds the entries of `tensors`. Existing entries keep their rows, because other threads may read them at the
        same time. Tensors with another dtype or shape, and codes out of range, are ignored; these codes are computed
        again."""
        keys, ids, raw = (tensors.get(name) for name in ("keys", "ids", "raw"))
        if (
            not _is_table(keys, torch.uint8, 16)
            or not _is_table(ids, torch.int32, self.length)
            or len(keys) != len(ids)
        ):
            return
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.codes:
            return
        rows, saved_ids = self.table
        added = [row for row, key in enumerate(map(bytes, keys.numpy())) if key not in rows]
        added_rows = {bytes(key): row for row, key in enumerate(keys.numpy()[added], start=len(saved_ids))}
        self.table = {**rows, **added_rows}, np.concatenate([saved_ids, ids.numpy()[added]])
        if _is_table(raw, torch.uint8, 32):
            self.raw = {**{pair[:16]: pair[16:] for pair in map(bytes, raw.numpy())}, **self.raw}

    def __contains__(self, key: bytes) -> bool:
        return key in self.rows or key in self.new

    def decoded(self, raw: bytes | None) -> bytes | None:
        """Returns the key of the decoded item of the raw value with the key `raw`; None if `raw` is None or has no
        entry."""
        return None if raw is None else self.raw.get(raw) or self.new_raw.get(raw)

    def get(self, key: bytes) -> list[int] | None:
        """Returns the codes of the item with this key; None if there is no entry."""
        new, (rows, ids) = self.new.get(key), self.table
        return ids[rows[key]].tolist() if key in rows else new

    @property
    def collapsed(self) -> bool:
        """Whether there are at least two saved items and all their codes are equal."""
        return len(self.ids) > 1 and bool((self.ids == self.ids[0, 0]).all())

    def save(self) -> None:
        """Writes the new entries to the file. Entries that other processes have saved since the last reading are kept.
        Does nothing without a path or without new entries. Raises OSError if the file cannot be written."""
        new, new_raw = dict(self.new), dict(self.new_raw)  # copies: another thread may add entries
        if self.path is None or not (new or new_raw):
            return
        make_folder(self.path.parent)
        with open_for_append(self.path.with_suffix(".lock")) as handle:
            with suppress(OSError):  # on a disk without locks, entries that another process saves now may be lost
                lock(handle, wait=True)
            self._read()
            self._add(new, new_raw)
            self._write()
        for pending, saved in ((self.new, new), (self.new_raw, new_raw)):
            for key in saved:
                pending.pop(key, None)

    def _add(self, new: dict[bytes, list[int]], new_raw: dict[bytes, bytes]) -> None:
        ids = np.array([*new.values()], dtype=np.int32).reshape(-1, self.length)
        self._merge({"keys": _table(new, 16), "ids": torch.from_numpy(ids)})
        self.raw = {**self.raw, **new_raw}

    def _write(self) -> None:
        rows, ids = self.table
        raw = _table([key + item for key, item in self.raw.items()], 32)
        tensors = {"keys": _table(rows, 16), "ids": torch.from_numpy(ids), "raw": raw}
        with partial_tensors(self.path, tensors) as partial:
            os.replace(partial, self.path)


def _is_table(tensor: torch.Tensor | None, dtype: torch.dtype, width: int) -> bool:
    """Returns whether a tensor is a matrix of this dtype with rows of this width."""
    return tensor is not None and tensor.dtype == dtype and tensor.dim() == 2 and tensor.shape[1] == width


def _table(keys: Iterable[bytes], width: int) -> torch.Tensor:
    """Returns keys of `width` bytes as a matrix (n, width)."""
    return torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, width).copy())


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def key_of(item: torch.Tensor) -> bytes:
    """Returns the key of an item: a 16-byte hash of its values, shape and dtype."""
    return _hash(f"{tuple(item.shape)} {item.dtype}".encode() + item.numpy().tobytes())


def raw_key(raw: Any) -> bytes | None:
    """Returns the key of a raw value, a hash of 16 bytes. For a path it is the hash of the path, size and change times
    of the file; for bytes, arrays, tensors, numbers and tuples of these, it is the hash of the content. Returns None
    for a missing file, for arrays of objects, for tensors other than uint8 and float32, and for all other types."""
    if isinstance(raw, str | os.PathLike):
        with suppress(OSError, ValueError):
            file = os.stat(raw)
            return _hash(f"{os.path.abspath(raw)} {file.st_size} {file.st_mtime_ns} {file.st_ctime_ns}".encode())
        return None
    if isinstance(raw, bytes):
        return _hash(b"bytes " + raw)
    if isinstance(raw, torch.Tensor):
        return key_of(raw) if raw.dtype in (torch.uint8, torch.float32) else None
    if isinstance(raw, np.ndarray):
        header = f"{raw.shape} {raw.dtype.str} ".encode()
        return None if raw.dtype.hasobject else _hash(header + raw.tobytes())
    if isinstance(raw, int | float):
        return _hash(repr(raw).encode())
    if isinstance(raw, tuple):
        keys = [raw_key(element) for element in raw]
        return None if None in keys else _hash(b"tuple " + b"".join(keys))
    return None
