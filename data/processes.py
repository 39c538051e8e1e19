"""The process group: rank, world size, device, and collective operations. Without `torchrun`, there is a single
process.

One group sums gradients (NCCL on GPUs). A second group (gloo, on the CPU) is for everything else: processes wait in it
while the first process prepares data, which can take hours, agree on what to do, and exchange objects. A process that
fails reports its failure in the store of torchrun. All other processes then end within seconds, instead of waiting for
the failed process.
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
"""The timeout of the gloo group: the maximum time that a process waits for the other processes."""
FAILED = f"chopmix/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
"""The key in torchrun's store that counts failed processes. After each restart by `torchrun`, the key is a new one."""


class ElsewhereError(ValueError):
    """Raised in a process if another process has raised an error in `Processes.agree`."""


@dataclass(frozen=True)
class Processes:
    """The process group and the rank of this process in it."""

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
        """Joins the group that `torchrun` describes in environment variables. Without these variables, returns a single
        process.

        `device` is `cpu`, `cuda`, or `auto` (a GPU if torch sees one). Raises ValueError for `cuda` if torch sees no
        GPU.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("training.device is 'cuda', but torch sees no GPU here; possible: 'auto', 'cpu'")
        kind = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        if "RANK" not in os.environ:
            return cls(0, 1, torch.device(kind))
        return cls._of_torchrun(kind)

    @classmethod
    def _of_torchrun(cls, kind: str) -> Processes:
        """Joins the group of `torchrun`. `kind` is `cpu` or `cuda`."""
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
        """Sums a tensor over all processes, in place, and returns it. Tensors on GPUs are summed with NCCL, tensors on
        the CPU with gloo."""
        if self.world_size > 1:
            dist.all_reduce(values, group=None if values.is_cuda else self.control)
        return values

    def agree(self, values: Sequence[float], error: Exception | None = None) -> list[float]:
        """Returns the sum of each number over all processes, computed in float64 on the CPU. If at least one process
        passes an `error`, every process raises: a process that passed an error raises this error, all others raise
        ElsewhereError."""
        if self.world_size == 1:
            if error is not None:
                raise error
            return list(values)
        return self._agree(values, error)

    def _agree(self, values: Sequence[float], error: Exception | None) -> list[float]:
        sums = self.sum(torch.tensor([*values, float(error is not None)], dtype=torch.float64)).tolist()
        if error is not None:
            raise error
        if sums.pop():
            raise ElsewhereError("another process raised an error")
        return sums

    def gathered(self, items: list) -> list:
        """Returns the items of all processes in one list, ordered by rank. The items are pickled for the transfer."""
        if self.world_size == 1:
            return items
        lists: list[list] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(lists, items, group=self.control)
        return [item for rank_items in lists for item in rank_items]

    def gathered_tensors(self, tensor: Tensor) -> list[Tensor]:
        """Returns a list with the tensor of each process, ordered by rank, on the device of this process. Only the
        length of the first axis may differ between processes."""
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
        """Returns, in all processes, the value that the process of rank 0 passes. The value is pickled for the
        transfer."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def broadcast_tensors(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """Returns, in all processes, the tensors by name that the process of rank 0 passes. They must be on the CPU.
        The arguments of the other processes are ignored."""
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
        """Runs the body of a `with` statement in three turns: first in the process of rank 0, then in the first process
        of every other machine, then in all remaining processes. If processes share a disk or a machine, they can read
        the files that earlier turns have written."""
        turn = 0 if self.is_first else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(2 - turn):
            self.wait()

    def share(self, rows: list, together: int = 1) -> list:
        """Returns the rows of a global batch that belong to this process. The rows are divided into groups of
        `together` neighbouring rows; this process gets every `world_size`-th group. With eight rows in pairs, the first
        of two processes gets 0 1 4 5, the second 2 3 6 7."""
        parts = [rows[start : start + together] for start in range(0, len(rows), together)]
        return [row for part in parts[self.rank :: self.world_size] for row in part]

    @classmethod
    def stop(cls) -> None:
        """Leaves the process group, and ends the thread `watch`. Called after the last run of this process."""
        if cls.watch is not None:
            cls.watch.ended.set()
            cls.watch = None
        if dist.is_initialized():
            dist.destroy_process_group()


class Watch:
    """A thread that checks every `seconds` whether another process has failed, until `ended` is set. If one has failed,
    the thread ends this process with exit status 2. If the parent process (`torchrun`) has ended, it sends SIGTERM to
    this process, once."""

    def __init__(self, seconds: float = 0.5):
        self.seconds, self.ended, self.parent = seconds, threading.Event(), os.getppid()
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store = dist.TCPStore(address, port, is_master=False, wait_for_workers=False)
        threading.Thread(target=self._run, daemon=True).start()

    def fail(self) -> bool:
        """Reports to all processes that this process has failed. Returns True if this process is the first one to fail,
        or if the store cannot be reached."""
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
    """Reports the failure of this process to the other processes. Returns whether this process should print its error:
    always for a single process; otherwise only if it is the first process that fails."""
    return Processes.watch is None or Processes.watch.fail()


def leave(status: int) -> int:
    """Returns `status` if `torchrun` did not start this process. Otherwise ends the process immediately with the exit
    status `status`.

    The threads of gloo outlive `destroy_process_group` while there are references to the group. If such a thread frees
    a tensor while the interpreter shuts down, the process is aborted (pytorch/pytorch#179291; this happened in one of
    twenty short runs in our tests). When this function is called, all files are already written.
    """
    if "RANK" not in os.environ:
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def seed_of(*numbers: int) -> int:
    """Returns a 63-bit seed that depends on several non-negative integers, computed by numpy's SeedSequence. Similar
    integers result in unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
