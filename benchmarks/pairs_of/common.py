"""Shared parts of the comparisons with other libraries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from chopmix.experiment.build import resolve
from chopmix.experiment.run import Run
from chopmix.experiment.settings.config import Config
from chopmix.experiment.settings.sections import Training
from chopmix.models.arithmetic import computing_type
from chopmix.models.batch import Batch
from chopmix.training.objective import autocast
from torch import Tensor, nn

CONFIGS = Path(__file__).parents[2] / "configs"


CPU = torch.device("cpu")


Loss = Callable[[], Tensor]


Pair = tuple[Callable[[], object], Callable[[], object], str]
"""Our program, the peer's program, and the name of the peer."""


def training(
    model: nn.Module, loss: Loss, precision: str, clip: float | None = None, rate: float = 1e-5
) -> Callable[[], None]:
    """Returns a function that runs one training step with AdamW."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.1, fused=True)

    def step() -> None:
        with autocast(CPU, precision):
            value = loss()
        value.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def precision_of(config: Config, setting: str) -> str:
    """Returns the precision of our side: `float32` or `bfloat16`, or for `defaults` what `precision: auto` chooses."""
    return setting if setting != "defaults" else resolve(Training(steps=1), config.model, None, CPU).precision


def peer_precision(setting: str) -> str:
    """Returns the precision of the peer: by default `float32`; `bfloat16` is torch's autocast, as on our side."""
    return setting if setting != "defaults" else "float32"


def planned(run: Run, batch: Batch) -> Batch:
    """Returns a batch with its attention layouts."""
    return run.model.plan(batch, dtype=computing_type(run.model))
