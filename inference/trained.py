"""A model with the tasks that it has learned: what every function of this package evaluates or generates with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ..data.processes import Processes
from ..models.model import Model
from ..tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model, its tasks, and the processes that compute with it. `Run` is a subclass.

    trained = TrainedModel(model=model, tasks={"digit": task})
    measured(trained, split).metrics                            # {"val/loss": 0.31, "val/accuracy": 0.91}
    """

    model: Model
    tasks: Mapping[str, Task]
    processes: Processes = field(default_factory=Processes.alone, repr=False)
    """The processes that share an evaluation."""

    @property
    def rows(self) -> int:
        """The number of samples (for a text corpus: windows) per forward pass of an evaluation."""
        return 64

    @property
    def model_device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device
