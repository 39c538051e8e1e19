"""What a run's folder holds, read and built."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from .assembly.model import build_model
from .assembly.opened_data import kept_parts
from .folder.reading import RunError, check_assets, listed, load_weights, read_config, say_aside, sound_step
from .settings.resolved import precision_of


def opened_parts(folder: Path, checkpoint: str, device: str, trust: Collection[str]) -> dict[str, Any]:
    """The fields of an `Opened` run; see `Opened.open`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RunError("device 'cuda' was asked for, but torch sees no GPU here; possible: auto, cpu")
    if checkpoint not in ("best", "last"):
        raise RunError(f"no checkpoint {checkpoint!r}; possible: best, last")
    config = read_config(folder, trust)
    check_assets(config, folder / "assets")
    choppers, tasks = kept_parts(config, folder / "assets")
    step = sound_step(folder, checkpoint, say_aside)
    model = build_model(config, choppers, tasks)
    state = load_weights(model, folder, step, choppers)
    inner = [name for name in state.missing if not name.startswith("heads.")]
    if inner:
        say_aside(
            f"{folder}: {listed(inner)} were missing when it was imported and are as initialised: what depends on "
            "them means nothing before it is trained"
        )
    kind = "cuda" if device == "auto" and torch.cuda.is_available() else device.replace("auto", "cpu")
    return dict(
        folder=folder, config=config, step=step, model=model.to(kind).eval(), tasks=tasks, choppers=choppers,
        which=checkpoint, precision=precision_of(folder, torch.device(kind)), missing=tuple(state.missing),
    )  # fmt: skip
