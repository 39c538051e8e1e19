"""`training.precision` and `training.compile` with `auto` and `fast` resolved: stored in a run's `choices.json`, and
used again when the run resumes or is loaded.

    {"precision": "bfloat16", "compile": false, "note": "", "device": "cpu"}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from ...files.reading import DataError
from ...files.records import Record, read_record
from ...files.writing import write_json
from ...tokenizers.part import Part
from ...training.accounting import fast_half, missing_compiler
from ...training.checkpoints import CheckpointError
from .sections import Training

WIDE, CHANNELS = 64, 16
"""From this width and this many channels a head on, bfloat16 takes at least a fifth less time than float32 on a CPU
with instructions for it: a rule fitted to benchmarks/results/precision.jsonl (by `benchmarks/precision.py`) and tested
against it."""


class Resolved(Record):
    """The precision of a run, and whether torch.compile compiles it; also the content of its `choices.json`."""

    precision: Literal["float32", "bfloat16"]
    compile: bool
    note: str = ""
    """Why the run is not compiled though it should be; else empty."""
    device: str
    """The kind of device that this is for: `cpu` or `cuda`."""


def read_resolved(folder: Path) -> Resolved | None:
    """The `choices.json` of a run; None where there is none. Raises CheckpointError for a damaged file."""
    file = folder / "choices.json"
    try:
        return read_record(file, Resolved) if file.exists() else None
    except DataError as error:
        raise CheckpointError(str(error)) from None


def resolve(training: Training, model: Part, folder: Path | None, device: torch.device) -> Resolved:
    """Resolve precision and compile: as in the `choices.json` of `folder` where that is for this kind of device, else
    by rule, and then stored there (`folder` None: nothing is read or stored).

    Precision `auto` is bfloat16 on a GPU that has it, and on a CPU with instructions for it where the model is wide
    enough to gain (see WIDE); `fast` is bfloat16 on such CPUs whatever the width. Compile `auto` is a GPU and 1,000
    steps or more. Where a compiler is missing, the run goes on without, and the note says so. Raises CheckpointError
    for a damaged `choices.json`."""
    before = read_resolved(folder) if folder else None
    if before and before.device == device.type:
        return before
    wide = device.type == "cuda" or training.precision == "fast" or gains(*width_and_channels(model))
    named = training.precision in ("float32", "bfloat16")
    precision = training.precision if named else "bfloat16" if wide and fast_half(device) else "float32"
    wanted = device.type == "cuda" and training.steps >= 1000 if training.compile == "auto" else training.compile
    missing = wanted and missing_compiler(device)
    note = f"not compiled: {missing}" if missing else ""
    made = Resolved(precision=precision, compile=bool(wanted and not missing), note=note, device=device.type)
    if folder:
        write_json(folder / "choices.json", made.model_dump())
    return made


def precision_of(folder: Path, device: torch.device) -> str:
    """The precision in which a run is evaluated: that of its training on this kind of device, or on another that
    multiplies bfloat16 in hardware; else float32. Raises CheckpointError for a damaged `choices.json`."""
    before = read_resolved(folder)
    same = before is not None and (before.device == device.type or fast_half(device))
    return before.precision if same else "float32"


def width_and_channels(model: Part) -> tuple[int, int]:
    """A model's width, and the channels of one head."""
    width, heads, block = (model.options[name] for name in ("width", "heads", "block"))
    options: Any = getattr(block, "options", {})
    return width, options.get("head_width") or width // heads


def gains(width: int, channels: int) -> bool:
    """Whether a core of this width and this many channels a head gains from bfloat16 on a CPU that has it."""
    return width >= WIDE and channels >= CHANNELS
