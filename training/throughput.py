"""What training has read since its last report: tokens, padding, arithmetic, and the time it waited for data."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.processes import Processes
from ..models.batch import Batch
from ..models.tokens import PADDING


@dataclass
class Counted:
    """What was read since the last report."""

    tokens: int = 0
    slots: int = 0
    flops: float = 0.0
    """Operations, forward and backward; see `accounting.Costs`."""
    waited: float = 0.0
    """Seconds in which training waited for data."""

    def add(self, batch: Batch, flops: float, counts_for_us: bool) -> None:
        """Count one micro-batch."""
        if not counts_for_us:
            return
        self.flops += flops
        for planned in batch.sets.values():
            self.tokens += int((planned.tokens.sample != PADDING).sum())
            self.slots += planned.tokens.sample.numel()

    def over(self, processes: Processes) -> Counted:
        """The sums over all processes."""
        tokens, slots, flops, waited = processes.agree([self.tokens, self.slots, self.flops, self.waited])
        return Counted(int(tokens), int(slots), flops, waited)
