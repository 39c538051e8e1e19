"""CUDA without a GPU: tensors on the CPU are real, tensors on CUDA are fake. A fake tensor has a device, a type and a
shape, but no values. A program that waits for a value gets an error, or the read is recorded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]

# The first backward pass of a process starts threads for all existing devices, also fake ones; a process with such
# threads cannot be forked. Here no device exists yet, so no threads are started.
torch.ones(1, requires_grad=True).sum().backward()


class HostRead(RuntimeError):
    """The program on the CPU waits for the GPU, to read a value that is computed there."""


class FakeCuda(FakeTensorMode):
    """Operations on the CPU are computed; tensors on CUDA have a type and a shape only. (With `FakeTensorMode` of
    torch all tensors would be fake, and batches could not be planned.)

    `reads` lists where the program waited for a value, `copies` where it copied a tensor to the GPU, and
    `blocking` where it waited for such a copy: file, line and function.
    """

    supports_higher_order_operators = True  # FlexAttention

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.reads: list[str] = []
        self.copies: list[str] = []
        self.blocking: list[str] = []
        self.may_read = self.copying = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return super().__torch_dispatch__(func, types, args, kwargs)
        if torch.is_inference_mode_enabled() and func.namespace != "prim":  # composite operations arrive undivided
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        leaves = tree_leaves((args, kwargs))
        on_cuda = any(isinstance(leaf, FakeTensor) and leaf.device.type == "cuda" for leaf in leaves)
        wanted = next((leaf.type for leaf in leaves if isinstance(leaf, torch.device)), "")
        name = func.overloadpacket.__name__
        if name in (
            "_use_cudnn_ctc_loss",
            "_use_miopen_ctc_loss",
        ):  # they query the driver; both need the blank as symbol 0
            return False
        if on_cuda and (wanted == "cpu" or name in READING or masks(name, args)):
            return self._read(name, args, kwargs)
        if name == "copy_" and on_cuda and args[0].device.type == "cpu":
            return args[0].copy_(self._read(name, args[1:], {}))
        copies = not on_cuda and wanted == "cuda" and any(isinstance(leaf, Tensor) for leaf in leaves)
        if copies and not self.copying:
            return self._copy(func, types, args, kwargs)
        if on_cuda or wanted == "cuda" or any(isinstance(leaf, FakeTensor) for leaf in leaves):
            return super().__torch_dispatch__(func, types, args, kwargs)
        return func(*args, **kwargs)

    def _copy(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Copy to the GPU, recorded once."""
        self.copies.append(caller())
        if not kwargs.get("non_blocking"):
            self.blocking.append(self.copies[-1])
        self.copying = True
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        finally:
            self.copying = False

    def _read(self, name: str, args: Any, kwargs: Any) -> Any:
        """Record a read. Returns ones for floats and zeros for other types; a result that depends on values has its
        largest possible size."""
        self.reads.append(caller())
        if not self.may_read:
            raise HostRead(f"{name} waits for the GPU at {self.reads[-1]}")
        first: Tensor = args[0]
        match name:
            case "_local_scalar_dense":
                return torch.zeros((), dtype=first.dtype).item()
            case "nonzero":
                return first.new_zeros((first.numel(), first.dim()), dtype=torch.long)
            case "bincount":
                return first.new_zeros((kwargs.get("minlength") or args[2],), dtype=torch.long)
            case "index":
                return first.clone()
        kind = kwargs.get("dtype") or first.dtype
        return torch.full(first.shape, int(kind.is_floating_point), dtype=kind)


READING = {"_local_scalar_dense", "nonzero", "bincount"}
"""Operations whose result is a value, or has a size that depends on values."""


def masks(name: str, args: Any) -> bool:
    """Whether an operation selects elements of a tensor by a boolean mask."""
    return name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1])


def caller() -> str:
    """The line of the repository that called an operation."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and path != Path(__file__).resolve():
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return "somewhere"


@contextmanager
def fake_cuda(half: bool = True, reads: bool = False) -> Iterator[FakeCuda]:
    """In this context `device="cuda"` creates fake tensors; with `half`, CUDA autocasts to bfloat16.

    Raises HostRead if the program waits for a value of the GPU. With `reads` it receives a substitute value instead,
    and the read is recorded.
    """
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    amp = mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    bfloat16 = mock.patch("torch.cuda.is_bf16_supported", lambda *_: True)
    flat = mock.patch("torch.nn.RNNBase.flatten_parameters", lambda layer: None)  # reads addresses; a fake has none
    with amp, bfloat16, flat, FakeCuda() as mode:
        mode.may_read = reads
        torch.set_autocast_enabled("cuda", half)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield mode
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
            torch.clear_autocast_cache()
