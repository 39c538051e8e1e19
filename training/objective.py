"""The objective: model and all losses as one module, so that DDP and torch.compile see the whole forward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import Processes
from ..models.batch import Batch, Targets
from ..models.contract import is_user_defined
from ..models.model import Model
from ..tasks.base import Task, terms_of


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """A context in which matrix products run in bfloat16 where `precision` is `bfloat16`, and in float32 where it is
    `float32`, also inside of another such context. Training and evaluation run inside."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class OutputGradient(NamedTuple):
    """What a micro-batch contributes to the loss of the complete batch."""

    loss: Tensor
    """Its part of the summed loss, a scalar: the parts of all micro-batches of all processes add up to it."""
    gradient: Tensor
    """The gradient of the summed loss with respect to the output of the micro-batch, of the output's shape."""

    def loss_of(self, output: Tensor) -> Tensor:
        """A scalar with the value `loss`, whose gradient with respect to `output` is `gradient`."""
        product = (output * self.gradient).sum()
        return product - product.detach() + self.loss


class Objective(nn.Module):
    """Maps a planned micro-batch to every task's summed loss. Its parameters are the model's alone.

    `precision` is `float32` or `bfloat16`; `mixup` replaces a batch by a mixed one (see `Mixup`), None: none does."""

    def __init__(
        self, model: Model, tasks: Mapping[str, Task], precision: str = "float32",
        mixup: Callable[[Batch], Batch] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.tasks, self.precision, self.mixup = model, dict(tasks), precision, mixup
        self.own = {name for name, task in tasks.items() if is_user_defined(task) or is_user_defined(model.heads[name])}
        """Names of the tasks whose class or head comes from outside chopmix: their losses are checked."""
        self.whole_batch = [name for name, task in tasks.items() if task.needs.whole_batch]
        """Names of the tasks whose loss compares all samples of the global batch."""

    def ready(self, batch: Batch, device: torch.device) -> Batch:
        """Prepare a micro-batch of the loader for `forward`: plan its attention layouts, move it to the device, apply
        mixup. Raises LeakError where a target can reach its own predictor."""
        batch = self.model.plan(batch, dtype=getattr(torch, self.precision), device=device)
        batch = batch if device.type == "cpu" else batch.to(device)
        return self.mixup(batch) if self.mixup else batch

    def forward(self, batch: Batch, gradients: Mapping[str, OutputGradient] | None = None) -> dict[str, Tensor]:
        """Every task's loss by name, a scalar: its terms summed over the targets of a micro-batch from `ready`, times
        the task's weight. Never a mean: `Learner.update` divides by the number of targets in the global batch.

        `gradients` replaces the losses of these tasks: see `training/whole_batch.py`."""
        with autocast(next(self.model.parameters()).device, self.precision):
            outputs, gradients = self.model(batch), gradients or {}
            return {
                name: gradients[name].loss_of(outputs[name]) if name in gradients
                else self.loss(name, outputs[name], batch.targets[name]) for name in self.tasks
            }  # fmt: skip

    def loss(self, name: str, output: Tensor, targets: Targets) -> Tensor:
        """One task's summed loss times its weight, a scalar."""
        return self.tasks[name].weight * sum(self.terms(name, output, targets).values())

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs of the heads of all tasks."""
        with autocast(next(self.model.parameters()).device, self.precision):
            return self.model(batch)

    def chance(self) -> float | None:
        """The loss of a uniform guess, all tasks with their weights; None if a task has no such number."""
        found = [(task.weight, task.chance()) for task in self.tasks.values()]
        return None if any(loss is None for _, loss in found) else sum(weight * loss for weight, loss in found)

    def terms(self, name: str, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
        """One task's loss terms by name, scalars. Raises ContractError where code outside chopmix gives others."""
        task, head = self.tasks[name], self.model.heads[name]
        return terms_of(name, task, head, output, targets) if name in self.own else task.terms(output, targets)


class Replica:
    """This process's copy of the model and its tasks, called with one micro-batch at a time."""

    def __init__(self, objective: Objective, processes: Processes):
        self.objective, self.processes = objective, processes
        self.forward: Callable[..., Mapping[str, Tensor]] = objective
        self.keeps: Callable[[], AbstractContextManager[None]] = nullcontext

    def start(self, compiled: bool = False) -> None:
        """Switch to training mode, compile if asked for, and wrap in DDP, which copies the first process's weights."""
        objective, device = self.objective.train(), self.processes.device
        if compiled:
            objective.compile()
        if self.processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(objective, device_ids=ids)
            self.keeps = self.forward.no_sync

    def __call__(self, batch: Batch, gradients: Mapping[str, OutputGradient]) -> Mapping[str, Tensor]:
        """Every task's summed loss over one micro-batch of the loader, after `Objective.ready`; see
        `Objective.forward`."""
        return self.forward(self.objective.ready(batch, self.processes.device), gradients)

    def sums_gradients(self, now: bool) -> AbstractContextManager[None]:
        """A context for one backward pass: gradients are summed over processes `now`, else only accumulated here, as
        for all micro-batches of a step but the last (DDP's `no_sync`)."""
        return nullcontext() if now else self.keeps()
