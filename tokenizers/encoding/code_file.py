"""A file of codes: what a trained run made of items, computed once and read by every later run and process."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...files.locking import lock
from ...files.printing import plain_console
from ...files.reading import DataError
from ...files.records import partial_tensors, read_tensors
from ...files.writing import make_folder, not_written, sweep_partials


@dataclass
class CodeFile:
    """The codes of items by what these contain: `keys` (n, 16), a hash of each item, and `ids` (n, length) in a
    safetensors file at `path` (None: in memory alone); and `raw` (m, 32), the key of a raw value and that of the item
    that it decodes to, so that it need not be decoded again. What joins later is kept in memory until `save`."""

    path: Path | None
    length: int
    codes: int
    """How many codes there are: the ids are below."""
    table: tuple[dict[bytes, int], np.ndarray] = field(init=False)
    """Which row of the ids each key has, and the ids; replaced as one, since a thread may read meanwhile."""
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
        """The row of each saved item."""
        return self.table[0]

    @property
    def ids(self) -> np.ndarray:
        """The codes of every saved item, (n, length)."""
        return self.table[1]

    def _read(self) -> None:
        """Take what the file holds."""
        if self.path is not None and os.path.isfile(self.path):
            with suppress(DataError):  # a damaged file is computed anew
                self._take(read_tensors(self.path))

    def _take(self, found: dict[str, torch.Tensor]) -> None:
        """Add tensors to what is known, of which nothing is lost: a thread that reads relies on it. Tensors that are no
        codes are ignored, since a damaged file is computed anew."""
        keys, ids, raw = (found.get(name) for name in ("keys", "ids", "raw"))
        if (
            not _is_table(keys, torch.uint8, 16)
            or not _is_table(ids, torch.int32, self.length)
            or len(keys) != len(ids)
        ):
            return
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self.codes:
            return
        rows, own = self.table
        more = [row for row, key in enumerate(map(bytes, keys.numpy())) if key not in rows]
        named = {bytes(key): len(own) + place for place, key in enumerate(keys.numpy()[more])}
        self.table = {**rows, **named}, np.concatenate([own, ids.numpy()[more]])
        if _is_table(raw, torch.uint8, 32):
            self.raw = {**{pair[:16]: pair[16:] for pair in map(bytes, raw.numpy())}, **self.raw}

    def __contains__(self, key: bytes) -> bool:
        return key in self.rows or key in self.new

    def decoded(self, raw: bytes | None) -> bytes | None:
        """The key of the item that the raw value with this key decodes to; None: it is not known."""
        return None if raw is None else self.raw.get(raw) or self.new_raw.get(raw)

    def get(self, key: bytes) -> list[int] | None:
        """The codes of the item with this key; None: they are not known."""
        new, (rows, ids) = self.new.get(key), self.table
        return ids[rows[key]].tolist() if key in rows else new

    @property
    def collapsed(self) -> bool:
        """Whether all codes of all saved items, of which there are several, are the same."""
        return len(self.ids) > 1 and bool((self.ids == self.ids[0, 0]).all())

    def save(self) -> None:
        """Replace the file by one that holds what joined as well, beside what other processes have saved meanwhile.
        Raises OSError where that fails."""
        new, new_raw = dict(self.new), dict(self.new_raw)  # a thread that reads may add to them
        if self.path is None or not (new or new_raw):
            return
        make_folder(self.path.parent)
        with opened_lock(self.path.with_suffix(".lock")) as handle:
            with suppress(OSError):  # on a disk without locks what another process saves at this moment is lost
                lock(handle, wait=True)
            self._read()
            self._add(new, new_raw)
            self._write()
        for known, more in ((self.new, new), (self.new_raw, new_raw)):
            for key in more:
                known.pop(key, None)

    def _add(self, new: dict[bytes, list[int]], new_raw: dict[bytes, bytes]) -> None:
        ids = np.array([*new.values()], dtype=np.int32).reshape(-1, self.length)
        self._take({"keys": _table(new, 16), "ids": torch.from_numpy(ids)})
        self.raw = {**self.raw, **new_raw}

    def _write(self) -> None:
        rows, ids = self.table
        raw = _table([key + item for key, item in self.raw.items()], 32)
        tensors = {"keys": _table(rows, 16), "ids": torch.from_numpy(ids), "raw": raw}
        with partial_tensors(self.path, tensors) as partial:
            os.replace(partial, self.path)


def _is_table(tensor: torch.Tensor | None, dtype: torch.dtype, width: int) -> bool:
    """Whether a tensor of a file has this type and rows of this width."""
    return tensor is not None and tensor.dtype == dtype and tensor.dim() == 2 and tensor.shape[1] == width


def opened_lock(path: Path) -> Any:
    """The lock file, open. Raises OSError naming it."""
    try:
        return open(path, "a+")
    except OSError as error:
        raise not_written(path, error) from error


def _table(keys: Iterable[bytes], width: int) -> torch.Tensor:
    """Keys of so many bytes as the rows of a table."""
    return torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, width).copy())


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def key_of(item: torch.Tensor) -> bytes:
    """The key of an item: a hash of its values, its shape and its type, 16 bytes."""
    return _hash(f"{tuple(item.shape)} {item.dtype}".encode() + item.numpy().tobytes())


def raw_key(raw: Any) -> bytes | None:
    """The key of a raw value, without decoding it, 16 bytes: of a file a hash of its path, its size and the times at
    which it changed, of bytes and arrays one of their content; None: it has none."""
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
        about = f"{raw.shape} {raw.dtype.str} ".encode()
        return None if raw.dtype.hasobject else _hash(about + raw.tobytes())
    if isinstance(raw, int | float):
        return _hash(repr(raw).encode())
    if isinstance(raw, tuple):
        keys = [raw_key(each) for each in raw]
        return None if None in keys else _hash(b"tuple " + b"".join(keys))
    return None


def counted(items: Iterable[Any], title: str) -> Iterator[Any]:
    """The items, with a line on standard error, where that is a terminal, that counts them."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    named = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), named, MofNCompleteColumn(), TimeElapsedColumn())
    shown = sys.stderr.isatty()
    with Progress(*columns, console=plain_console(stderr=True), transient=True, disable=not shown) as bar:
        yield from bar.track(items, description=title)
