"""The objective: model and tasks as one module, so that DDP and torch.compile see the whole forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..models.batch import Batch, Targets
from ..models.model import Model
from ..tasks.base import Task
from ..tasks.targets import is_own, terms_of


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The arithmetic of a run: inside, matrix products are made in bfloat16 where that was chosen. Training and
    evaluation, also `chopmix evaluate`, are inside."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


class Objective(nn.Module):
    """Read a batch and give every task's loss terms. It owns no parameter but the model's."""

    def __init__(
        self, model: Model, tasks: Mapping[str, Task], precision: str = "float32",
        mixup: Callable[[Batch, Mapping[str, Task]], Batch] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.tasks, self.precision, self.mixup = model, dict(tasks), precision, mixup
        self.own = {name for name, task in tasks.items() if is_own(task) or is_own(model.heads[name])}
        """The tasks whose class, or whose head, is of code outside chopmix."""

    def ready(self, batch: Batch, device: torch.device) -> Batch:
        """A micro-batch of the loader with its layouts planned, on the device, mixed where that is asked for."""
        batch = self.model.plan(batch, dtype=getattr(torch, self.precision), device=device)
        batch = batch if device.type == "cpu" else batch.to(device)
        return self.mixup(batch, self.tasks) if self.mixup else batch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Every task's loss, weighted, summed over the targets of one micro-batch that is `ready`: never a mean."""
        with autocast(next(self.model.parameters()).device, self.precision):
            outputs = self.model(batch)
            return {
                name: task.weight * sum(self.terms(name, outputs[name], batch.targets[name]).values())
                for name, task in self.tasks.items()
            }

    def terms(self, name: str, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
        """One task's loss terms; those of code outside chopmix are checked."""
        task, head = self.tasks[name], self.model.heads[name]
        return terms_of(name, task, head, output, targets) if name in self.own else task.terms(output, targets)
