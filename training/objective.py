"""The objective: the model and all losses as one module. DDP and torch.compile need the complete forward pass as one
module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import Processes
from ..models.batch import Batch, Targets
from ..models.contract import is_user_defined
from ..models.model import Model
from ..tasks.base import Task, terms_of
from .adapters import adapted_weights, merged, trained_part


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """Returns a context in which matrix products are computed in `precision`, which is `bfloat16` or `float32`. The
    context overrides an outer autocast context. Training and evaluation run inside this context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


class OutputGradient(NamedTuple):
    """The contribution of a micro-batch to the loss of a task over the global batch; see `training/whole_batch.py`."""

    loss: Tensor
    """This micro-batch's part of the loss, a scalar. The sum over all real micro-batches of all processes is the summed
    loss of the global batch."""
    gradient: Tensor
    """The gradient of the summed loss with respect to the head's output for this micro-batch, in the shape of this
    output."""

    def loss_of(self, output: Tensor) -> Tensor:
        """Returns a scalar with the value `loss`, whose gradient with respect to `output` is `gradient`."""
        product = (output * self.gradient).sum()
        return product - product.detach() + self.loss


class Objective(nn.Module):
    """Maps a micro-batch to the summed loss of each task. It has no parameters except those of the model.

    `tasks` maps the name of each task to the task. `precision` is `float32` or `bfloat16`. `mixup` maps a batch to a
    batch with mixed samples (see `Mixup`); None: samples are not mixed. `adapted`: whether the model has adapters (see
    `training/adapters.py`)."""

    def __init__(
        self, model: Model, tasks: Mapping[str, Task], precision: str = "float32",
        mixup: Callable[[Batch], Batch] | None = None, adapted: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.model, self.tasks, self.precision, self.mixup = model, dict(tasks), precision, mixup
        self.adapted = adapted
        self.user_defined = {
            name for name, task in tasks.items() if is_user_defined(task) or is_user_defined(model.heads[name])
        }
        """The names of the tasks whose class or head is user-defined. The losses of these tasks are checked."""
        self.whole_batch = [name for name, task in tasks.items() if task.needs.whole_batch]
        """The names of the tasks whose loss compares all samples of the global batch."""

    def ready(self, batch: Batch, device: torch.device) -> Batch:
        """Returns a micro-batch of the loader, prepared for `forward`: with its attention layouts planned, on the
        device, and with its samples mixed by `mixup`. Raises LeakError if a supervised slot depends on the token that
        contains its target."""
        batch = self.model.plan(batch, dtype=getattr(torch, self.precision), device=device)
        batch = batch if device.type == "cpu" else batch.to(device)
        return self.mixup(batch) if self.mixup else batch

    def forward(self, batch: Batch, gradients: Mapping[str, OutputGradient] | None = None) -> dict[str, Tensor]:
        """Returns the summed loss of each task by its name, a scalar: the sum of all loss terms of the task over the
        targets of the micro-batch, times the weight of the task; and the summed loss terms of the layers of each core,
        if there are any, as `cores.main`. `Learner.update` divides them by the counts of the global batch. `batch` is a
        result of `ready`. If `gradients` contains a task, the loss of this task comes from `OutputGradient.loss_of`
        (see `training/whole_batch.py`)."""
        with autocast(next(self.model.parameters()).device, self.precision):
            outputs, gradients = self.read(batch), gradients or {}
            losses = {
                name: gradients[name].loss_of(outputs[name]) if name in gradients
                else self.loss(name, outputs[name], batch.targets[name]) for name in self.tasks
            }  # fmt: skip
            return losses | {
                f"cores.{name}": core.take_loss() for name, core in self.model.cores.items() if core.losses
            }

    def loss(self, name: str, output: Tensor, targets: Targets) -> Tensor:
        """Returns the sum of all loss terms of the task `name`, times the weight of the task, a scalar."""
        return self.tasks[name].weight * sum(self.terms(name, output, targets).values())

    def outputs(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the output of each head by the name of its task."""
        with autocast(next(self.model.parameters()).device, self.precision):
            return self.read(batch)

    def read(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the outputs of the model for training, with its adapters if it has any."""
        return functional_call(self.model, adapted_weights(self.model), (batch,)) if self.adapted else self.model(batch)

    def weights(self) -> dict[str, Tensor]:
        """Returns the tensors that a checkpoint contains, by name."""
        return trained_part(self.model) if self.adapted else self.model.state_dict()

    def evaluating(self) -> AbstractContextManager[None]:
        """Returns a context in which the matrices of the model contain its adapters, if it has any. Training must not
        go on inside this context."""
        return merged(self.model) if self.adapted else nullcontext()

    def chance(self) -> float | None:
        """Returns the loss of a uniform guess: the sum over all tasks, each times its weight. Returns None if this loss
        is unknown for a task."""
        losses = [(task.weight, task.chance()) for task in self.tasks.values()]
        return None if any(loss is None for _, loss in losses) else sum(weight * loss for weight, loss in losses)

    def terms(self, name: str, output: Tensor, targets: Targets) -> Mapping[str, Tensor]:
        """Returns the loss terms of the task `name` by the name of the term, scalars. Raises ContractError if a
        user-defined task or head returns a value of another type or shape."""
        task, head = self.tasks[name], self.model.heads[name]
        return terms_of(name, task, head, output, targets) if name in self.user_defined else task.terms(output, targets)


class Replica:
    """This process's copy of the model and its tasks. It is called with one micro-batch at a time."""

    def __init__(self, objective: Objective, processes: Processes):
        self.objective, self.processes = objective, processes
        self.forward: Callable[..., Mapping[str, Tensor]] = objective
        self.no_sync: Callable[[], AbstractContextManager[None]] = nullcontext

    def start(self, compiled: bool = False) -> None:
        """Switches to training mode and compiles the objective if `compiled`. If there are several processes, wraps the
        objective in DDP, which copies the weights of the first process to all other processes."""
        objective, device = self.objective.train(), self.processes.device
        if compiled:
            objective.compile()
        if self.processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(objective, device_ids=ids)
            self.no_sync = self.forward.no_sync

    def __call__(self, batch: Batch, gradients: Mapping[str, OutputGradient]) -> Mapping[str, Tensor]:
        """Returns the summed loss of each task by its name, for one micro-batch of the loader: the result of
        `Objective.ready` and then `Objective.forward`."""
        return self.forward(self.objective.ready(batch, self.processes.device), gradients)

    def gradient_sync(self, enabled: bool) -> AbstractContextManager[None]:
        """Returns a context for one backward pass. If `enabled`, gradients are averaged over all processes (DDP). If
        not, gradients are only accumulated in this process (DDP's `no_sync`); this is enough for all micro-batches of a
        step except the last one."""
        return nullcontext() if enabled else self.no_sync()
