"""Several processes that train together as with torchrun. They are forked from this process, which has imported all
modules; this saves seconds."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from pathlib import Path
from typing import NamedTuple

from chopmix.commands.cli import main

FORKS = multiprocessing.get_context("fork")
SECONDS = 120
"""The seconds after which a process is killed."""


class Done(NamedTuple):
    """The result of a job: the largest exit status, and the text of both streams."""

    returncode: int
    stdout: str
    stderr: str


def train_together(folder: Path, count: int, *arguments: str, machines: bool = False) -> Done:
    """Run `train.py ARGUMENTS` in `count` processes, which write their outputs into `folder`. `machines`: each process
    is the first of a separate machine, whose disk is the folder `disk-RANK`."""
    port = free_port()
    tasks = [(folder, rank, count, port, arguments, machines) for rank in range(count)]
    processes = [FORKS.Process(target=run_rank, args=args) for args in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    outputs = [[(folder / f"rank-{rank}.{name}").read_text() for rank in range(count)] for name in ("out", "err")]
    return Done(max(abs(process.exitcode) for process in processes), *map("".join, outputs))


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def run_rank(folder: Path, rank: int, count: int, port: int, arguments: tuple[str, ...], machines: bool) -> None:
    """One process of a job, with the environment of torchrun and files for its streams."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"rank-{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count,
                 "MASTER_ADDR": "localhost", "MASTER_PORT": port}  # fmt: skip
    if machines:
        disk = folder / f"disk-{rank}"
        disk.mkdir(exist_ok=True)
        os.chdir(disk)
        variables |= {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "CHOPMIX_CACHE": disk / "cache"}
    os.environ |= {name: str(value) for name, value in variables.items()}
    status = 1
    try:
        status = main(["train", *map(str, arguments)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
