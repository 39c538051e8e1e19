"""What this machine offers: instructions for bfloat16, a compiler."""

from __future__ import annotations

import os
import shutil

import torch


def fast_half(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 matrices in hardware: a GPU of compute capability 8.0 or more, a CPU with
    AVX-512 BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in checks)


def missing_compiler(device: torch.device) -> str:
    """What torch.compile lacks on this machine, as a sentence; empty where it lacks nothing."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "torch.compile needs triton on a GPU, which is not installed"
    compiler = os.environ.get("CXX", "g++")
    if not (shutil.which(compiler) or shutil.which("clang++")):
        return f"torch.compile needs a C++ compiler, and there is no {compiler!r} here"
    return ""
