"""Large arrays in `.npy` files, which are written row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .writing import atomic_file


@contextmanager
def array_file(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[np.ndarray], None]]:
    """Returns a context with a function that writes the next rows of a float32 array of this shape. The file appears
    under its name when the context ends without an exception. Raises OSError if the file cannot be written."""
    with atomic_file(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header(shape))
        yield lambda rows: file.write(np.ascontiguousarray(rows, np.float32).tobytes())


def header(shape: tuple[int, ...]) -> dict[str, object]:
    """Returns the header of the `.npy` file of a float32 array of this shape."""
    return {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
