"""A file of codes: what a trained run made of items, computed once and read by every later run and process."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files.reading import DataError
from ..files.records import read_tensors, write_tensors
from ..files.writing import make_folder, partial_name, sweep_partials


@dataclass
class CodeFile:
    """The codes of items by what these contain: `keys` (n, 16), a hash of each item, and `ids` (n, length) in a
    safetensors file at `path` (None: in memory alone). Items that join later are kept in memory until `save`."""

    path: Path | None
    length: int
    ids: np.ndarray = field(init=False)
    rows: dict[bytes, int] = field(default_factory=dict)
    new: dict[bytes, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        self.ids = np.zeros((0, self.length), dtype=np.int32)
        if self.path is not None and self.path.is_file():
            with suppress(DataError):  # a damaged file is computed anew
                self._take(read_tensors(self.path))

    def _take(self, found: dict[str, torch.Tensor]) -> None:
        keys, ids = (found.get(name) for name in ("keys", "ids"))
        if keys is None or ids is None or tuple(keys.shape) != (len(ids), 16) or tuple(ids.shape[1:]) != (self.length,):
            return
        self.ids = ids.numpy()
        self.rows = {key.tobytes(): row for row, key in enumerate(keys.numpy())}

    def get(self, key: bytes) -> list[int] | None:
        """The codes of the item with this key; None: they are not known."""
        row = self.rows.get(key)
        return self.new.get(key) if row is None else self.ids[row].tolist()

    @property
    def collapsed(self) -> bool:
        """Whether all codes of all saved items, of which there are several, are the same."""
        return len(self.ids) > 1 and bool((self.ids == self.ids[0, 0]).all())

    def save(self) -> None:
        """Replace the file by one that holds what joined as well. Raises OSError where that fails."""
        if self.path is None or not self.new:
            return
        joined = np.array([*self.new.values()], dtype=np.int32).reshape(-1, self.length)
        keys = np.frombuffer(b"".join([*self.rows, *self.new]), dtype=np.uint8).reshape(-1, 16)
        found = {"keys": torch.from_numpy(keys.copy()), "ids": torch.from_numpy(np.concatenate([self.ids, joined]))}
        make_folder(self.path.parent)
        sweep_partials(self.path)
        partial = partial_name(self.path)
        try:
            write_tensors(partial, found)
            partial.replace(self.path)
        finally:
            partial.unlink(missing_ok=True)
        self.new = {}
        self._take(found)


def key_of(item: torch.Tensor) -> bytes:
    """The key of an item: a hash of its values, its shape and its type, 16 bytes."""
    about = f"{tuple(item.shape)} {item.dtype}".encode()
    return hashlib.blake2b(about + item.numpy().tobytes(), digest_size=16).digest()


def counted(items: Iterable[Any], title: str) -> Iterator[Any]:
    """The items, with a line on standard error, where that is a terminal, that counts them."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn(title), MofNCompleteColumn(), TimeElapsedColumn())
    shown = sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bar:
        yield from bar.track(items)
