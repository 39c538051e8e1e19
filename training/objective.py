"""The objective: model and all losses as one module, so that DDP and torch.compile see the complete forward pass."""

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
    """A context in which matrix products are computed in `precision`, `bfloat16` or `float32`. It overrides an outer
    autocast context. Training and evaluation run inside it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class OutputGradient(NamedTuple):
    """The contribution of a micro-batch to the loss of the complete batch."""

    loss: Tensor
    """A scalar: the parts of all micro-batches of all processes add up to the summed loss of the batch."""
    gradient: Tensor
    """The gradient of the summed loss with respect to the micro-batch's output, in the shape of the output."""

    def loss_of(self, output: Tensor) -> Tensor:
        """Returns a scalar with the value `loss`, whose gradient with respect to `output` is `gradient`."""
        product = (output * self.gradient).sum()
        return product - product.detach() + self.loss


class Objective(nn.Module):
    """Maps a planned micro-batch to the summed loss of each task. All of its parameters are the model's.

    `precision` is `float32` or `bfloat16`. `mixup` maps a batch to a mixed one (see `Mixup`); None: no mixing."""

    def __init__(
        self, model: Model, tasks: Mapping[str, Task], precision: str = "float32",
        mixup: Callable[[Batch], Batch] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.model, self.tasks, self.precision, self.mixup = model, dict(tasks), precision, mixup
        self.user_defined = {
            name for name, task in tasks.items() if is_user_defined(task) or is_user_defined(model.heads[name])
        }
        """The tasks whose class or head is user-defined. Their losses are checked."""
        self.whole_batch = [name for name, task in tasks.items() if task.needs.whole_batch]
        """The tasks whose loss compares all samples of the global batch."""

    def ready(self, batch: Batch, device: torch.device) -> Batch:
        """Prepare a micro-batch of the loader for `forward`: plan its attention layouts, move it to the device and
        apply mixup. Raises LeakError if the token that predicts a target can read this target."""
        batch = self.model.plan(batch, dtype=getattr(torch, self.precision), device=device)
        batch = batch if device.type == "cpu" else batch.to(device)
        return self.mixup(batch) if self.mixup else batch

    def forward(self, batch: Batch, gradients: Mapping[str, OutputGradient] | None = None) -> dict[str, Tensor]:
        """Returns the loss of each task by name, a scalar: its terms, summed over the targets of a micro-batch from
        `ready`, times the task's weight. It is not a mean: `Learner.update` divides by the number of targets in the
        global batch. Tasks in `gradients` get their loss from there, see `training/whole_batch.py`."""
        with autocast(next(self.model.parameters()).device, self.precision):
            outputs, gradients = self.model(batch), gradients or {}
            return {
                name: gradients[name].loss_of(outputs[name]) if name in gradients
                else self.loss(name, outputs[name], batch.targets[name]) for name in self.tasks
            }  # fmt: skip

    def loss(self, name: str, output: Tensor, targets: Targets) -> Tensor:
        """Returns the summed loss of one task times its weight, a scalar."""
        return self.tasks[name].weight * sum(self.terms(name, output, targets).values())

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the outputs of the heads of all tasks."""
        with autocast(next(self.model.parameters()).device, self.precision):
            return self.model(batch)

    def chance(self) -> float | None:
        """The loss of a uniform guess, summed over all tasks with their weights. None if it is unknown for a task."""
        losses = [(task.weight, task.chance()) for task in self.tasks.values()]
        return None if any(loss is None for _, loss in losses) else sum(weight * loss for weight, loss in losses)

    def terms(self, name: str, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
        """The loss terms of one task by name, scalars. Raises ContractError if a user-defined task or head returns
        anything else."""
        task, head = self.tasks[name], self.model.heads[name]
        return terms_of(name, task, head, output, targets) if name in self.user_defined else task.terms(output, targets)


class Replica:
    """This process's copy of the model and its tasks, called with one micro-batch at a time."""

    def __init__(self, objective: Objective, processes: Processes):
        self.objective, self.processes = objective, processes
        self.forward: Callable[..., Mapping[str, Tensor]] = objective
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext

    def start(self, compiled: bool = False) -> None:
        """Switch to training mode, compile if `compiled`, and wrap the objective in DDP, which copies the weights
        of the first process to all others."""
        objective, device = self.objective.train(), self.processes.device
        if compiled:
            objective.compile()
        if self.processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(objective, device_ids=ids)
            self.no_sync = self.forward.no_sync

    def __call__(self, batch: Batch, gradients: Mapping[str, OutputGradient]) -> Mapping[str, Tensor]:
        """Returns the summed loss of each task over one micro-batch of the loader. Calls `Objective.ready`, then
        `Objective.forward`."""
        return self.forward(self.objective.ready(batch, self.processes.device), gradients)

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """A context for one backward pass. If `enabled`, gradients are summed over all processes; else they are only
        accumulated in this process (DDP's `no_sync`), as for all micro-batches of a step but the last."""
        return nullcontext() if enabled else self.no_sync()
