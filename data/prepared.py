"""Folders of prepared arrays: `NAME.npy` for each array, and `about.json`. They are written once, and mapped into
memory when they are read, so that processes share them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

import numpy as np

from ..files.reading import LARGE, DataError
from ..files.records import read_json
from ..files.writing import delete, make_folder, partial_name, sweep_partials, write_json


class Arrays:
    """An open folder of prepared arrays: `arrays["NAME"]`, and the content of `about.json` as `arrays.about`. Raises
    DataError if a file is missing or damaged, or if `check` finds a problem. Pickling keeps only the path of the
    folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            self.about: dict[str, Any] = read_json(folder / "about.json", LARGE)
            shapes = self.about["arrays"].items()
            self._arrays = {name: mapped(folder / f"{name}.npy", tuple(shape), kind) for name, (shape, kind) in shapes}
            self.check()
        except DAMAGES as error:
            raise DataError(f"the prepared data in {folder} are damaged ({error}); delete this folder") from None

    def __reduce__(self):
        return type(self), (self.folder,)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def check(self) -> None:
        """Raises an exception of DAMAGES if the content is not valid. The default accepts everything."""


DAMAGES = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, SyntaxError, TokenError)
"""The exceptions that reading damaged arrays or JSON values can raise."""


def mapped(path: Path, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Returns the array in a `.npy` file, mapped into memory. Raises an exception of DAMAGES if the file is damaged, or
    has another shape or data type."""
    array = np.load(path, mmap_mode=None if 0 in shape else "r", allow_pickle=False)  # an empty file cannot be mapped
    if array.shape != shape or array.dtype.str != kind:
        raise ValueError(f"{path.name} has {array.dtype.str} {array.shape} instead of {kind} {shape}")
    return array.view(np.ndarray)  # an element of a `memmap` takes twice as long


class Columnwise:
    """Writes arrays in parts: `add` appends to the file `NAME.npy` in a folder. `about` is written to `about.json`."""

    def __init__(self, folder: Path):
        self.folder, self.about, self.files, self.shapes = folder, {}, {}, {}

    def __enter__(self) -> Columnwise:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        for name, file in self.files.items():
            self._header(name)
            file.flush()
            os.fsync(file.fileno())
            file.close()
        if kind is None:
            arrays = {name: ((rows, *shape), dtype.str) for name, (rows, shape, dtype) in self.shapes.items()}
            write_json(self.folder / "about.json", {**self.about, "arrays": arrays})

    def add(self, name: str, part: np.ndarray) -> None:
        """Appends rows to an array."""
        if name not in self.files:
            self.files[name] = open(self.folder / f"{name}.npy", "wb")
            self.shapes[name] = 0, part.shape[1:], part.dtype
            self._header(name)
        self.files[name].write(np.ascontiguousarray(part).tobytes())
        rows, shape, dtype = self.shapes[name]
        self.shapes[name] = rows + len(part), shape, dtype

    def _header(self, name: str) -> None:
        """Writes the header of the file, whose size does not depend on the number of rows."""
        rows, shape, dtype = self.shapes[name]
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (rows, *shape)}
        self.files[name].seek(0)
        np.lib.format.write_array_header_1_0(self.files[name], header)


A = TypeVar("A", bound=Arrays)


def prepared(folder: Path, write: Callable[[Columnwise], None], kind: type[A] = Arrays) -> A:
    """Returns the arrays in `folder`. If the folder does not exist or is damaged, `write` first writes them to a
    temporary folder, which is then renamed: another process never reads an incomplete folder."""
    with suppress(DataError):
        return kind(folder)
    make_folder(folder.parent)
    temporary = folder.with_suffix(".new")
    sweep_partials(temporary)
    partial = partial_name(temporary)
    make_folder(partial)
    try:
        with Columnwise(partial) as columns:
            write(columns)
        replace_folder(partial, folder, kind)
    finally:
        delete(partial)
    return kind(folder)


def replace_folder(partial: Path, folder: Path, kind: type[Arrays]) -> None:
    """Renames `partial` to `folder`, unless another process was faster. A damaged folder is removed first."""
    for _ in range(3):
        with suppress(OSError):  # it exists
            partial.rename(folder)
            return
        with suppress(DataError):
            kind(folder)
            return
        damaged = partial_name(folder.with_suffix(".new"))
        with suppress(OSError):
            folder.rename(damaged)
        delete(damaged)
