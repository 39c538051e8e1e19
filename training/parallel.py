"""The objective as training calls it: compiled where that was chosen, under DDP where there are several processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import Processes
from ..models.batch import Batch
from .objective import Objective


class Replica:
    """The model and its tasks, as this process trains them."""

    def __init__(self, objective: Objective, processes: Processes):
        self.objective, self.processes = objective, processes
        self.forward: Callable[[Batch], Mapping[str, Tensor]] = objective
        self.keeps: Callable[[], AbstractContextManager[None]] = nullcontext

    def start(self, compiled: bool = False) -> None:
        """Put it into training mode, compiled if asked for; processes start with the first one's weights."""
        objective, device = self.objective.train(), self.processes.device
        if compiled:
            objective.compile()
        if self.processes.world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            self.forward = DistributedDataParallel(objective, device_ids=ids)
            self.keeps = self.forward.no_sync

    def __call__(self, batch: Batch) -> Mapping[str, Tensor]:
        """Every task's summed loss over one micro-batch of the loader, which is planned, moved and mixed first."""
        return self.forward(self.objective.ready(batch, self.processes.device))

    def sums_gradients(self, now: bool) -> AbstractContextManager[None]:
        """A context in which a backward pass sums gradients over processes `now`, or keeps them for a later one of
        this step."""
        return nullcontext() if now else self.keeps()
