"""Arenas: anonymous shared memory through which a worker process hands objects that contain tensors to its parent."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import tempfile
import weakref
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALIGNED = 64
"""The offset of every tensor in an arena is a multiple of this number of bytes."""
MEMORY = "/dev/shm"
"""The folder whose files are in memory, on Linux."""


class Arena:
    """A file without a name that two processes map into their memory. It disappears with the last process that uses it.
    An arena can be an argument of a `multiprocessing.Process`; the child then uses the same file."""

    def __init__(self, file: int | None = None):
        folder = MEMORY if os.path.isdir(MEMORY) and os.access(MEMORY, os.W_OK) else None
        if file is None:
            with tempfile.TemporaryFile(dir=folder) as temporary:
                file = os.dup(temporary.fileno())
        self.file, self.memory = file, None

    def __reduce__(self) -> tuple[Callable[[Any], Arena], tuple[Any]]:
        return _received, (reduction.DupFd(self.file),)

    def close(self) -> None:
        """Closes the file in this process. The arena cannot be used afterwards."""
        self.memory = None
        os.close(self.file)

    def _mapped(self, size: int) -> mmap.mmap:
        """Returns the memory of the file, which must have at least `size` bytes."""
        if self.memory is None or len(self.memory) < size:
            self.memory = mmap.mmap(self.file, os.fstat(self.file).st_size)
        return self.memory

    def write(self, value: Any) -> int:
        """Writes an object. Returns its size in bytes. Raises OSError if there is not enough memory, and the errors of
        `pickle` if the object cannot be pickled."""
        pickled, tensors = io.BytesIO(), []
        _Pickler(pickled, tensors).dump(value)
        content = pickled.getbuffer()
        ends = np.cumsum([16 + len(content), *(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors)])
        start = -(-int(ends[0]) // ALIGNED) * ALIGNED
        size = start + int(ends[-1] - ends[0])
        if os.fstat(self.file).st_size < size:
            reserve(self.file, size)
        memory = np.frombuffer(self._mapped(size), np.uint8)
        memory[:16].view(np.int64)[:] = len(content), start
        memory[16 : 16 + len(content)] = content
        for tensor, end in zip(tensors, ends):
            first = start + int(end - ends[0])
            memory[first : first + tensor.nbytes] = tensor.contiguous().view(-1).view(torch.uint8).numpy()
        return size

    def read(self, size: int, pinned: bool = False) -> Any:
        """Returns a copy of the object that `write` has written; all its tensors are views of one tensor. `size` is the
        result of `write`; `pinned`: the tensors are in page-locked memory, from which a GPU copies faster."""
        copied = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        copied.copy_(torch.frombuffer(self._mapped(size), dtype=torch.uint8, count=size))
        return restored(copied)

    def lend(self, size: int, release: Callable[[], None]) -> Any:
        """Returns the object that `write` has written without a copy. `release` is called when none of its tensors is
        used any more; until then the arena must not be written."""
        memory = memoryview(self._mapped(size))  # torch keeps it as long as a tensor uses it
        weakref.finalize(memory, release).atexit = False
        return restored(torch.frombuffer(memory, dtype=torch.uint8, count=size))


def restored(content: Tensor) -> Any:
    """Returns the object in the bytes of an arena, with tensors that are views of these bytes."""
    length, start = content[:16].view(torch.int64).tolist()
    return _Unpickler(io.BytesIO(content[16 : 16 + length].numpy()), content[start:]).load()


def _received(duplicate: Any) -> Arena:
    return Arena(duplicate.detach())


def reserve(file: int, size: int) -> None:
    """Makes a file at least `size` bytes large, with the memory for them. Raises OSError if there is too little."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(
                file, 0, size
            )  # without it, a write to memory that does not exist would kill the process
        except OSError as error:
            hint = "use fewer data.workers or smaller batches, or a larger /dev/shm (docker run --shm-size)"
            raise OSError(error.errno, f"no shared memory for a batch of {size:,} bytes; {hint}") from None
    else:
        os.ftruncate(file, size)


class _Pickler(pickle.Pickler):
    """Pickles an object without its tensors, which are appended to the list `tensors`. A tensor is replaced by its
    offset in the file (from the first tensor), its data type and its shape."""

    def __init__(self, file: io.BytesIO, tensors: list[Tensor]):
        super().__init__(file, protocol=5)
        self.tensors, self.end = tensors, 0

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return None
        start, self.end = self.end, self.end + -(-value.nbytes // ALIGNED) * ALIGNED
        self.tensors.append(value)
        return start, value.nbytes, value.dtype, value.shape


class _Unpickler(pickle.Unpickler):
    """Reads what `_Pickler` wrote. `content` contains the bytes of all tensors."""

    def __init__(self, file: io.BytesIO, content: Tensor):
        super().__init__(file)
        self.content = content

    def persistent_load(self, identifier: Any) -> Tensor:
        start, size, dtype, shape = identifier
        return self.content[start : start + size].view(dtype).view(shape)
