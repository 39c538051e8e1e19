"""CUDA without a GPU: fake tensors know their device, type and shape, mix no devices, and raise where a value would be waited for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def fake_cuda(half: bool = True) -> Iterator[FakeTensorMode]:
    """Inside, tensors are fake; with `half`, CUDA's rules of autocast to bfloat16 hold. (`torch.autocast` refuses to start where
    there is no GPU; the switch behind it does not.)"""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        torch.set_autocast_enabled("cuda", half)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield mode
        finally:
            torch.set_autocast_enabled("cuda", before[0])
            torch.set_autocast_dtype("cuda", before[1])
            torch.clear_autocast_cache()
