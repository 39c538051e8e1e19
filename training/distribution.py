"""One process or several: who we are, what we sum, where we compute. `torchrun` starts several."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """The process group as one process sees it."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def start(cls, device: str = "auto") -> Processes:
        """Join the group that `torchrun` describes in the environment; without one, be the only process.

        Raises ValueError when a GPU is asked for that is not there.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("training.device is 'cuda', but torch sees no GPU here; possible: 'auto', 'cpu'")
        kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if "RANK" not in os.environ:
            return cls(0, 1, torch.device(kind))
        local = int(os.environ["LOCAL_RANK"])
        if kind == "cuda":
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if kind == "cuda" else "gloo")
        place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        return cls(dist.get_rank(), dist.get_world_size(), place)

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes files for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gathered(self, items: list) -> list:
        """The items of all processes, one process after another."""
        if self.count == 1:
            return items
        found: list[list] = [[] for _ in range(self.count)]
        dist.all_gather_object(found, items)
        return [item for each in found for item in each]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def share(self, rows: list, together: int = 1) -> list:
        """This process's part of a global batch: every `count`-th row, or of so many rows that stay `together`."""
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
        return [row for part in parts[self.rank :: self.count] for row in part]

    @staticmethod
    def stop() -> None:
        """Leave the group, after the last run of this process."""
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(status: int) -> int:
    """Give the status back; where `torchrun` started this process, end it with that status, now.

    gloo's threads outlive `destroy_process_group` as long as anything refers to the group, and one that frees a tensor while
    the interpreter shuts down aborts the process (pytorch/pytorch#179291: one in twenty short runs here). By now everything
    is written.
    """
    if "RANK" not in os.environ:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
