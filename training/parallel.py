"""The objective as training calls it: compiled where asked for, under DDP where there are several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import Processes
from ..models.batch import Batch
from .objective import Objective


class Replica:
    """This process's copy of the model and its tasks, called with one micro-batch at a time."""

    def __init__(self, objective: Objective, processes: Processes):
        self.objective, self.processes = objective, processes
        self.forward: Callable[[Batch], Mapping[str, Tensor]] = objective
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

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Every task's summed loss over one micro-batch of the loader, after `Objective.ready`."""
        return self.forward(self.objective.ready(batch, self.processes.device))

    def sums_gradients(self, now: bool) -> AbstractContextManager[None]:
        """A context for one backward pass: gradients are summed over processes `now`, else only accumulated here, as
        for all micro-batches of a step but the last (DDP's `no_sync`)."""
        return nullcontext() if now else self.keeps()
