"""What all pairs of programs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from chopmix.experiment.build import resolve
from chopmix.experiment.run import Run
from chopmix.experiment.settings.sections import Training
from chopmix.models.arithmetic import computing_type
from chopmix.models.batch import Batch
from chopmix.training.objective import autocast
from torch import Tensor, nn

CONFIGS = Path(__file__).parents[2] / "configs"


CPU = torch.device("cpu")


Loss = Callable[[], Tensor]


Pair = tuple[Callable[[], object], Callable[[], object], str]
"""Ours, the peer's, and the peer's name."""


def training(
    model: nn.Module, loss: Loss, precision: str, clip: float | None = None, rate: float = 1e-5
) -> Callable[[], None]:
    """One training step."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.1, fused=True)

    def step() -> None:
        with autocast(CPU, precision):
            found = loss()
        found.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def own_precision(run: Run, wanted: str) -> str:
    """float32, or what a run of this model would choose for itself."""
    return "float32" if wanted == "float32" else resolve(Training(steps=1), run.config.model, None, CPU).precision


def planned(run: Run, batch: Batch) -> Batch:
    """A batch with its layouts."""
    return run.model.plan(batch, dtype=computing_type(run.model))
