"""Several processes that train together as under torchrun, forked from this one, which has imported everything:
seconds sooner."""

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
"""After which processes are taken for hung."""


class Done(NamedTuple):
    """How a job ended: the worst exit status, and all that was written to either stream."""

    returncode: int
    stdout: str
    stderr: str


def train_together(folder: Path, count: int, *arguments: str, machines: bool = False) -> Done:
    """`train.py ARGUMENTS` in so many processes; `folder` takes what they write. `machines`: each is the first process
    of a machine of its own, whose disk is the folder `disk-RANK`."""
    port = free_port()
    given = [(folder, rank, count, port, arguments, machines) for rank in range(count)]
    started = [FORKS.Process(target=one, args=args) for args in given]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    told = [[(folder / f"rank-{rank}.{name}").read_text() for rank in range(count)] for name in ("out", "err")]
    return Done(max(abs(process.exitcode) for process in started), *map("".join, told))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def one(folder: Path, rank: int, count: int, port: int, arguments: tuple[str, ...], machines: bool) -> None:
    """The life of one of them, with torchrun's environment and files for its streams."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"rank-{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "localhost",
           "MASTER_PORT": port}  # fmt: skip
    if machines:
        disk = folder / f"disk-{rank}"
        disk.mkdir(exist_ok=True)
        os.chdir(disk)
        own |= {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "CHOPMIX_CACHE": disk / "cache"}
    os.environ |= {name: str(value) for name, value in own.items()}
    status = 1
    try:
        status = main(["train", *map(str, arguments)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
