"""What `auto` and `fast` chose for a run (precision, compile), stored with it and used again when it resumes."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .checkpoint import read_json, write_json

if TYPE_CHECKING:
    from .experiment import Training


@dataclass(frozen=True)
class Choices:
    """The settings that `auto` stands for."""

    precision: str
    compile: bool
    note: str = ""
    """Why something asked for was not done."""


def choose(training: Training, folder: Path | None, device: torch.device) -> Choices:
    """Resolve `auto`: from the run's own `choices.json` when it has one for this kind of device, else by rule.

    `auto` is bfloat16 on a GPU that has it and float32 on a CPU; `fast` is bfloat16 on such CPUs as well. Compiled on a GPU for runs of 1,000 steps or more, where it pays for itself. Where
    compiling is asked for and no compiler is found, the run goes on without, and the note says so.
    """
    file = folder / "choices.json" if folder else None
    if file and file.exists():
        kept = read_json(file)
        if kept.pop("device") == device.type:
            return Choices(**kept)
    half = fast_half(device) and (training.precision == "fast" or device.type == "cuda")
    named = training.precision in ("float32", "bfloat16")
    precision = training.precision if named else "bfloat16" if half else "float32"
    wanted = device.type == "cuda" and training.steps >= 1000 if training.compile == "auto" else training.compile
    missing = wanted and missing_compiler(device)
    note = f"not compiled: {missing}" if missing else ""
    made = Choices(precision, bool(wanted and not missing), note)
    if file:
        write_json(file, {**asdict(made), "device": device.type})
    return made


def fast_half(device: torch.device) -> bool:
    """Whether this device multiplies bfloat16 matrices with instructions made for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return torch.backends.mkldnn.is_available() and any(getattr(torch.cpu, name, bool)() for name in checks)


def missing_compiler(device: torch.device) -> str:
    """What torch.compile lacks on this machine; empty when it lacks nothing."""
    if device.type == "cuda":
        try:
            import triton  # noqa: F401
        except ImportError:
            return "torch.compile needs triton on a GPU, which is not installed"
    compiler = os.environ.get("CXX", "g++")
    if not (shutil.which(compiler) or shutil.which("clang++")):
        return f"torch.compile needs a C++ compiler, and there is no {compiler!r} here"
    return ""
