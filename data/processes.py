"""The process group: rank, world size, device, and the collectives. `torchrun` starts several processes, else there is
one.

Beside the group that sums gradients (NCCL on GPUs) there is one for everything else (gloo, on the CPU): waiting while
the first process prepares data, which may take hours, agreeing on what to do, handing files around. A process that
fails reports it in torchrun's store, and all others end within seconds instead of waiting for it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = timedelta(days=7)
"""The timeout of gloo's group: how long processes wait for one that works alone."""
FAILED = f"chopmix/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
"""The key of torchrun's store under which processes that fail are counted; every restart by `torchrun` has its own."""


class ElsewhereError(ValueError):
    """Raised in all processes but the one that met an error, which raises its own."""


@dataclass(frozen=True)
class Processes:
    """The process group as one process sees it."""

    rank: int
    world_size: int
    device: torch.device
    control: Any = field(default=None, repr=False)
    """The gloo group, for everything but gradients; None for a single process."""
    watch: ClassVar[Watch | None] = None
    """What ends this process when another one fails; None for a single process."""

    @classmethod
    def alone(cls) -> Processes:
        """A single process, which joins no group."""
        return cls(0, 1, torch.device("cpu"))

    @classmethod
    def start(cls, device: str = "auto") -> Processes:
        """Join the group that `torchrun` describes in the environment; without one, be the only process.

        `device` is `cpu`, `cuda`, or `auto`: a GPU where torch sees one. Raises ValueError for `cuda` where it sees
        none.
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
            dist.init_process_group("nccl") if kind == "cuda" else dist.init_process_group("gloo", timeout=PATIENCE)
            cls.watch = Watch()
        control = dist.new_group(backend="gloo", timeout=PATIENCE) if kind == "cuda" else dist.group.WORLD
        place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        return cls(dist.get_rank(), dist.get_world_size(), place, control)

    @property
    def is_first(self) -> bool:
        """Whether this is the process of rank 0, which prints and writes files for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place: by NCCL on GPUs, by gloo on the CPU."""
        if self.world_size > 1:
            dist.all_reduce(values, group=None if values.is_cuda else self.control)
        return values

    def agree(self, values: Sequence[float], error: Exception | None = None) -> list[float]:
        """The sums of some numbers over all processes, in float64 on the CPU. Where a process gives an `error`, all
        raise: that process its own, the others ElsewhereError."""
        if self.world_size == 1:
            if error is not None:
                raise error
            return list(values)
        found = self.sum(torch.tensor([*values, float(error is not None)], dtype=torch.float64)).tolist()
        if error is not None:
            raise error
        if found.pop():
            raise ElsewhereError("another process met an error")
        return found

    def gathered(self, items: list) -> list:
        """The items of all processes in one list, by rank (pickled on the way)."""
        if self.world_size == 1:
            return items
        found: list[list] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(found, items, group=self.control)
        return [item for each in found for item in each]

    def gathered_tensors(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of each process, by rank, on the device of this process's. The length of the first axis may differ
        between processes."""
        if self.world_size == 1:
            return [tensor]
        shapes = self.gathered([tuple(tensor.shape)])
        rows = max(shape[0] for shape in shapes)
        padded = tensor.new_zeros(rows, *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        flat = padded.reshape(-1).view(torch.uint8)  # gloo has no all_gather of bfloat16
        buffers = [torch.empty_like(flat) for _ in shapes]
        dist.all_gather(buffers, flat, group=None if tensor.is_cuda else self.control)
        return [each.view(tensor.dtype).reshape(padded.shape)[: shape[0]] for each, shape in zip(buffers, shapes)]

    def broadcast(self, value: Any) -> Any:
        """Broadcast: the first process's value, in all of them (pickled on the way)."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def broadcast_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Broadcast: the first process's tensors by name (on the CPU), in all of them; what the others give is not
        looked at."""
        if self.world_size == 1:
            return dict(tensors or {})
        shapes = self.broadcast({name: (tuple(t.shape), t.dtype) for name, t in (tensors or {}).items()})
        found = {}
        for name, (shape, kind) in shapes.items():
            found[name] = tensors[name].contiguous() if self.is_first else torch.empty(shape, dtype=kind)
            if found[name].numel():
                flat = found[name].reshape(-1).view(torch.uint8)
                dist.broadcast(flat, src=0, group=self.control)
        return found

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            dist.barrier(group=self.control)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the body of a `with` in three turns: the first process of all alone, then the first of every other
        machine, then the rest. What the first writes, the others find, where they share a disk or a machine."""
        turn = 0 if self.is_first else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    def share(self, rows: list, together: int = 1) -> list:
        """This process's part of a global batch: every `world_size`-th row, or group of `together` neighbouring rows.
        Of eight rows in pairs the first of two processes gets 0 1 4 5, the second 2 3 6 7."""
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
        return [row for part in parts[self.rank :: self.world_size] for row in part]

    @classmethod
    def stop(cls) -> None:
        """Leave the process group and end the watch, after the last run of this process."""
        if cls.watch is not None:
            cls.watch.ended.set()
            cls.watch = None
        if dist.is_initialized():
            dist.destroy_process_group()


class Watch:
    """A thread that looks every `every` seconds, until `ended` is set: it ends this process (status 2) when one has
    failed, and sends it SIGTERM, once, when its parent (`torchrun`) is gone."""

    def __init__(self, every: float = 0.5):
        self.every, self.ended, self.parent = every, threading.Event(), os.getppid()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)
        threading.Thread(target=self._run, daemon=True).start()

    def fail(self) -> bool:
        """Report to all that this process has failed; gives whether it is the first to do so."""
        with suppress(RuntimeError):  # the process that keeps the store may be gone already
            return self.store.add(FAILED, 1) == 1
        return True

    def _run(self) -> None:
        asked = False
        while not self.ended.wait(self.every):
            with suppress(RuntimeError):
                if self.store.check([FAILED]):
                    time.sleep(2 * self.every)  # so that the message of the failed process is written first
                    leave(2)
            if os.getppid() != self.parent and not asked:
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)


def speaks_of_failure() -> bool:
    """Whether this process should print its error: a single one always, of several only the first that fails. Reports
    the failure to the others."""
    return Processes.watch is None or Processes.watch.fail()


def leave(status: int) -> int:
    """Give the exit status back; where `torchrun` started this process, end it with that status, now.

    gloo's threads outlive `destroy_process_group` as long as anything refers to the group, and one that frees a
    tensor while the interpreter shuts down aborts the process (pytorch/pytorch#179291: one in twenty short runs
    here). By now everything is written.
    """
    if "RANK" not in os.environ:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def seed_of(*numbers: int) -> int:
    """One 63-bit seed from several numbers of at least 0, by numpy's SeedSequence: close numbers give unrelated
    seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
