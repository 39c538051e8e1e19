"""The objective as training calls it: compiled where that was chosen, under DDP where there are several processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.processes import Processes
from .objective import Objective


def parallel(objective: Objective, processes: Processes, compiled: bool) -> nn.Module:
    """The objective in training mode. Processes start with the first one's weights."""
    objective.train()
    if compiled:
        objective.compile()
    if processes.count == 1:
        return objective
    ids = [processes.device.index] if processes.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=ids)


def sums_gradients(objective: Callable, now: bool) -> AbstractContextManager[None]:
    """A context in which a backward pass sums gradients over processes `now`, or keeps them for a later one of
    this step."""
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) and not now else nullcontext()
