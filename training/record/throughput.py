"""What training has read since the last line of the log: tokens, padding, FLOPs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...data.processes import Processes
from ...models.batch import Batch
from ...models.tokens import PADDING


@dataclass(frozen=True)
class Throughput:
    """Counts of what was read, summed over micro-batches and over all sets (encoder and decoder)."""

    tokens: int = 0
    slots: int = 0
    """Tokens and padding."""
    flops: float = 0.0
    """FLOPs, forward and backward; see `accounting.Costs`."""
    waited: float = 0.0
    """Seconds in which training waited for data."""

    def plus(self, batches: Sequence[Batch], flops: Callable[[Batch], float], waited: float) -> Throughput:
        """These counts and those of some micro-batches, for which training waited `waited` seconds."""
        read = [batch for batch in batches if batch.real]
        samples = [planned.tokens.sample for batch in read for planned in batch.sets.values()]
        return Throughput(
            self.tokens + sum(int((sample != PADDING).sum()) for sample in samples),
            self.slots + sum(sample.numel() for sample in samples),
            self.flops + sum(map(flops, read)),
            self.waited + waited,
        )

    def over(self, processes: Processes) -> Throughput:
        """The sums over all processes."""
        tokens, slots, flops, waited = processes.agree([self.tokens, self.slots, self.flops, self.waited])
        return Throughput(int(tokens), int(slots), flops, waited)
