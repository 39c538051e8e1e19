"""What training has read since its last report: tokens, padding, and the time it waited for data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..models.batch import Batch
from ..models.token_set import PADDING
from .distribution import Processes


@dataclass
class Counted:
    """What was read since the last report."""

    tokens: int = 0
    places: int = 0
    waited: float = 0.0
    """Seconds in which training waited for data."""

    def add(self, batch: Batch, counts_for_us: bool) -> None:
        """Count one micro-batch."""
        for planned in batch.sets.values() if counts_for_us else ():
            self.tokens += int((planned.tokens.sample != PADDING).sum())
            self.places += planned.tokens.sample.numel()

    def over(self, processes: Processes, device: torch.device) -> Counted:
        """The sums over all processes."""
        values = torch.tensor([self.tokens, self.places, self.waited], dtype=torch.float64, device=device)
        tokens, places, waited = processes.sum(values).tolist()
        return Counted(int(tokens), int(places), waited)
