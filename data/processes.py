"""The process group: rank, world size, device, and collectives. Without `torchrun` there is a single process.

One group sums gradients (NCCL on GPUs); a second one (gloo, on the CPU) does everything else: wait while the first
process prepares data, which can take hours, agree on what to do, and exchange objects. A process that fails reports it
in the store of torchrun, and all others end within seconds instead of waiting for it.
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
"""The timeout of the gloo group: how long processes wait for another one."""
FAILED = f"chopmix/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
"""The key in torchrun's store that counts failed processes. Each restart by `torchrun` has a separate key."""


class ElsewhereError(ValueError):
    """Raised in all processes if another process raises an error."""


@dataclass(frozen=True)
class Processes:
    """The process group, seen from one process."""

    rank: int
    world_size: int
    device: torch.device
    control: Any = field(default=None, repr=False)
    """The gloo group, for everything except gradients; None for a single process."""
    watch: ClassVar[Watch | None] = None
    """The thread that ends this process if another one fails; None for a single process."""

    @classmethod
    def alone(cls) -> Processes:
        """Returns a single process without a group."""
        return cls(0, 1, torch.device("cpu"))

    @classmethod
    def start(cls, device: str = "auto") -> Processes:
        """Joins the group that `torchrun` describes in the environment. Without one, returns a single process.

        `device` is `cpu`, `cuda`, or `auto` (a GPU if torch sees one). Raises ValueError for `cuda` if torch sees no
        GPU.
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
        local_device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
        return cls(dist.get_rank(), dist.get_world_size(), local_device, control)

    @property
    def is_first(self) -> bool:
        """Whether this is the process of rank 0, which prints and writes files for all processes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sums a tensor over all processes, in place: with NCCL on GPUs, with gloo on the CPU."""
        if self.world_size > 1:
            dist.all_reduce(values, group=None if values.is_cuda else self.control)
        return values

    def agree(self, values: Sequence[float], error: Exception | None = None) -> list[float]:
        """Returns the sum of each number over all processes, in float64 on the CPU. If a process passes an `error`, all
        processes raise: this one its error, the others ElsewhereError."""
        if self.world_size == 1:
            if error is not None:
                raise error
            return list(values)
        sums = self.sum(torch.tensor([*values, float(error is not None)], dtype=torch.float64)).tolist()
        if error is not None:
            raise error
        if sums.pop():
            raise ElsewhereError("another process raised an error")
        return sums

    def gathered(self, items: list) -> list:
        """Returns the items of all processes in one list, ordered by rank. They are pickled for the transfer."""
        if self.world_size == 1:
            return items
        lists: list[list] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, items, group=self.control)
        return [item for rank_items in lists for item in rank_items]

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
        """Returns the value of the first process in all processes. It is pickled for the transfer."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def broadcast_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Returns the tensors (on the CPU) of the first process, by name, in all processes. The argument of the other
        processes is ignored."""
        if self.world_size == 1:
            return dict(tensors or {})
        shapes = self.broadcast({name: (tuple(t.shape), t.dtype) for name, t in (tensors or {}).items()})
        received = {}
        for name, (shape, kind) in shapes.items():
            received[name] = tensors[name].contiguous() if self.is_first else torch.empty(shape, dtype=kind)
            if received[name].numel():
                flat = received[name].reshape(-1).view(torch.uint8)
                dist.broadcast(flat, src=0, group=self.control)
        return received

    def wait(self) -> None:
        """Waits until all processes have called this method."""
        if self.world_size > 1:
            dist.barrier(group=self.control)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Runs the body of a `with` in three turns: the process of rank 0, then the first process of every other
        machine, then all others. Processes that share a disk or a machine can read the files that earlier turns
        write."""
        turn = 0 if self.is_first else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    def share(self, rows: list, together: int = 1) -> list:
        """Returns this process's part of a global batch: every `world_size`-th row, or group of `together` neighbouring
        rows. With eight rows in pairs, the first of two processes gets 0 1 4 5, the second 2 3 6 7."""
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
        return [row for part in parts[self.rank :: self.world_size] for row in part]

    @classmethod
    def stop(cls) -> None:
        """Leaves the process group and ends the watch. Called after the last run of this process."""
        if cls.watch is not None:
            cls.watch.ended.set()
            cls.watch = None
        if dist.is_initialized():
            dist.destroy_process_group()


class Watch:
    """A thread that checks the process group every `seconds` until `ended` is set. It ends this process (status 2) if
    another one has failed, and sends it SIGTERM, once, if its parent (`torchrun`) has ended."""

    def __init__(self, seconds: float = 0.5):
        self.seconds, self.ended, self.parent = seconds, threading.Event(), os.getppid()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)
        threading.Thread(target=self._run, daemon=True).start()

    def fail(self) -> bool:
        """Reports to all processes that this one has failed. Returns whether it is the first to do so."""
        with suppress(RuntimeError):  # the process that hosts the store may have ended
            return self.store.add(FAILED, 1) == 1
        return True

    def _run(self) -> None:
        asked = False
        while not self.ended.wait(self.seconds):
            with suppress(RuntimeError):
                if self.store.check([FAILED]):
                    time.sleep(2 * self.seconds)  # so that the failed process prints its message first
                    leave(2)
            if os.getppid() != self.parent and not asked:
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)


def speaks_of_failure() -> bool:
    """Returns whether this process should print its error, and reports the failure to the other processes. A single
    process always prints; of several, only the first that fails."""
    return Processes.watch is None or Processes.watch.fail()


def leave(status: int) -> int:
    """Returns the exit status. If `torchrun` started this process, ends it immediately with this status.

    The threads of gloo outlive `destroy_process_group` while there are references to the group, and a thread that frees
    a tensor during the shutdown of the interpreter aborts the process (pytorch/pytorch#179291; one in twenty short runs
    in our tests). All files are written at this point.
    """
    if "RANK" not in os.environ:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def seed_of(*numbers: int) -> int:
    """Returns a 63-bit seed from several non-negative numbers, by numpy's SeedSequence: similar numbers result in
    unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
