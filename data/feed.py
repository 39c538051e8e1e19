"""Feeds: read the batches of splits ahead of time, in worker processes (`data.workers`) or in a thread.

The main process selects the samples (`Split.plan`) and submits requests; batches and notes on bad samples are used in
the order of the requests. Therefore the number of workers changes neither a batch nor a message.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import torch

from ..files.reading import DataError
from ..models.batch import Batch
from .arena import Arena
from .request import Feed, Request
from .skipped import Event, silent
from .split import Split
from .workers import SPAWN, deaf, end_with_parent, pickled

AHEAD = 3
"""The largest number of requests of one kind (training, or anything else) that one worker has at the same time."""
LENT = 2
"""The largest number of batches of one worker and kind that are used where the worker wrote them, without a copy."""
SLOTS = AHEAD + LENT
"""The number of arenas of one worker and kind."""
IN_FLIGHT = 2**30
"""The number of bytes (1 GiB) of the batches that are read ahead, at most; one batch can be larger."""

TAKEN = -1
"""The number of a message to a worker that contains a rollout instead of a request."""

Plan = Callable[[Batch], Batch]
"""Adds the attention layouts to a batch, and checks it for leaks."""
Result = tuple[list[Batch], list[Event]]
"""The batches of a request, and the notes that reading them made (see `skipped.Recorder`)."""


class Ticket(NamedTuple):
    """A submitted request."""

    number: int
    worker: int
    slot: int
    """The number of the arena of the worker in which the batches will be."""
    text: str
    """What is read, for messages: `8 samples of train, the first with the number 17`."""


class Thread(Feed):
    """Reads in a thread of this process, in which torch has one thread, unless `threads` is true. `splits` maps names
    to splits."""

    def __init__(self, splits: Mapping[str, Split], threads: bool = False):
        self.splits, self.threads, self.executor = splits, threads, None

    def start(self) -> None:
        self.recording = {name: split.recording(cache=True) for name, split in self.splits.items()}
        self.executor = ThreadPoolExecutor(1)
        if not self.threads:
            others = torch.get_num_threads()
            self.executor.submit(one_thread).result()
            torch.set_num_threads(others)  # of this thread, and of threads that start later

    def submit(self, split: str, request: Request) -> Future[Result]:
        if self.executor is None:
            self.start()
        return self.executor.submit(self.recording[split].fetch_noted, request)

    def result(self, ticket: Future[Result]) -> Result:
        return ticket.result()

    def discard(self, ticket: Future[Result]) -> None:
        ticket.cancel()

    def ahead(self, training: bool) -> int:
        return 1

    def close(self) -> None:
        self.leave()
        if self.executor:
            self.executor.shutdown(cancel_futures=True)


def one_thread() -> None:
    """Limits torch to one thread in the calling thread, but not in the other threads of this process. Sums over several
    threads could be rounded differently."""
    torch.set_num_threads(1)


class Workers(Feed):
    """Reads in `number` processes. `splits` maps names to splits; `plan` is applied to every batch (None: nothing).
    `pinned`: batches are in page-locked memory. `limit` is the number of bytes of batches that are read ahead. `say` is
    called with a line about these batches.

    Request k for training is read by worker k modulo `number`, and so is request k of all others. A worker writes the
    batches of a request into one of its arenas. This process uses them there, or copies them if few arenas are free."""

    def __init__(
        self, splits: Mapping[str, Split], number: int, plan: Plan | None = None, pinned: bool = False,
        limit: int = IN_FLIGHT, say: Callable[[str], None] = silent,
    ):  # fmt: skip
        self.splits, self.number, self.plan = splits, number, plan
        self.pinned, self.limit, self.say, self.largest = pinned, limit, say, 0
        self.numbers, self.turns = count(), {True: count(), False: count()}
        self.done: dict[int, tuple[int, Exception | None]] = {}
        self.workers: list[Worker] = []

    def start(self) -> None:
        """Starts the processes. Raises DataError if a split cannot be sent to them."""
        if reason := obstacle(self.splits, self.plan):
            raise DataError(
                f"data.workers: {reason}. Define its classes and functions at the top level of a module, or set "
                "data.workers: 0"
            )
        content = pickled(({name: split.recording() for name, split in self.splits.items()}, self.plan))
        with deaf():
            self.workers = [Worker(content, f"worker {index + 1} of {self.number}") for index in range(self.number)]

    def submit(self, split: str, request: Request) -> Ticket:
        if not self.workers:
            self.start()
        number, index = next(self.numbers), next(self.turns[request.training]) % len(self.workers)
        worker = self.workers[index]
        with worker.lock:
            while not worker.slots[request.training] and worker.discarded:
                self.receive(worker, request.text(split))
        ticket = Ticket(number, index, worker.take_slot(request.training), request.text(split))
        worker.send((number, ticket.slot, split, request), ticket.text)
        return ticket

    def result(self, ticket: Ticket) -> Result:
        """See `Feed.result`. Raises DataError within seconds if the worker has ended."""
        worker = self.workers[ticket.worker]
        while True:
            with worker.lock:
                if ticket.number in self.done:
                    break
                self.receive(worker, ticket.text)
        size, error = self.done.pop(ticket.number)
        if error is not None:
            worker.free(ticket.slot)
            raise error
        arena = worker.arenas[ticket.slot]
        if not self.pinned and worker.can_lend(ticket.slot):
            return arena.lend(size, partial(worker.free, ticket.slot))
        result = arena.read(size, self.pinned)
        worker.free(ticket.slot)
        return result

    def take(self, split: str, index: int, samples: Sequence[Any]) -> None:
        for worker in self.workers:
            worker.send((TAKEN, index, split, samples), "a rollout")

    def receive(self, worker: Worker, text: str) -> None:
        """Waits for the next message of a worker."""
        number, slot, size, error = worker.received(text)
        if size > self.largest:
            is_first, self.largest = not self.largest, size
            if is_first:
                ahead = self.ahead(training=True)
                processes = "1 process reads" if self.number == 1 else f"{self.number} processes read"
                self.say(f"data.workers: {processes} ahead, {ahead} batches of {size / 1e6:.1f} MB")
        if number in worker.discarded:
            worker.discarded.discard(number)
            worker.free(slot)
        else:
            self.done[number] = size, error

    def discard(self, ticket: Ticket) -> None:
        worker = self.workers[ticket.worker]
        with worker.lock:
            if self.done.pop(ticket.number, None) is None:
                worker.discarded.add(ticket.number)
            else:
                worker.free(ticket.slot)

    def ahead(self, training: bool) -> int:
        """See `Feed.ahead`: enough for all workers, but not more than `limit` bytes."""
        most = (AHEAD - 1) * len(self.workers)
        return max(1, min(most, self.limit // self.largest if self.largest else self.number))

    def close(self) -> None:
        self.leave()
        for worker in self.workers:
            worker.end()


class Worker:
    """One worker process, from the view of the main process. `content` are the pickled splits, `name` is its name in
    messages."""

    def __init__(self, content: bytes, name: str):
        self.connection, other = SPAWN.Pipe()
        self.arenas = [Arena() for _ in range(2 * SLOTS)]
        self.slots = {True: deque(range(SLOTS)), False: deque(range(SLOTS, 2 * SLOTS))}
        """The free arenas, for training (True) and for everything else (False)."""
        self.lent: set[int] = set()
        """The arenas whose batches are used by this process."""
        self.discarded: set[int] = set()
        """The numbers of the requests that were given up, and whose messages have not arrived."""
        self.lock, self.sending, self.name = threading.Lock(), threading.Lock(), name
        self.process = SPAWN.Process(target=serve, args=(other, self.arenas), daemon=True, name=f"chopmix {name}")
        self.process.start()
        other.close()
        self.send(content, "the splits")

    def take_slot(self, training: bool) -> int:
        """Returns a free arena, and marks it as used. Raises RuntimeError if there is none, because more than AHEAD
        requests were submitted before a result was used."""
        try:
            return self.slots[training].popleft()
        except IndexError:
            raise RuntimeError(f"{self.name} has {AHEAD} requests whose results are not used yet") from None

    def free(self, slot: int) -> None:
        """Marks an arena as free."""
        self.lent.discard(slot)
        self.slots[slot < SLOTS].appendleft(slot)  # memory that was used last is in the cache of the processor

    def can_lend(self, slot: int) -> bool:
        """Returns whether a batch can be used in its arena; it is then counted until its arena is free."""
        kind = slot < SLOTS
        if sum((other < SLOTS) == kind for other in list(self.lent)) >= LENT:
            return False
        self.lent.add(slot)
        return True

    def send(self, message: Any, text: str) -> None:
        """Sends a message to the process. A long message is sent in parts, between which no other thread may send."""
        try:
            with self.sending:
                self.connection.send(message)
        except OSError:
            raise self.ended(text) from None

    def received(self, text: str) -> tuple[int, int, int, Exception | None]:
        """Waits for the next message: (number of the request, arena, size, error)."""
        wait([self.connection, self.process.sentinel])
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, OSError):
            pass
        raise self.ended(text)

    def ended(self, text: str) -> DataError:
        """Returns the error for a process that has ended."""
        self.process.join(5)
        status = self.process.exitcode
        how = (
            f"was killed by {signal.Signals(-status).name}" if status and status < 0 else f"ended with status {status}"
        )
        hint = "; there may be too little memory: use fewer data.workers" if status == -signal.SIGKILL else ""
        return DataError(f"data.workers: {self.name} (process {self.process.pid}) {how} while it read {text}{hint}")

    def end(self) -> None:
        """Ends the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        for arena in self.arenas:
            arena.close()


def serve(connection: Connection, arenas: list[Arena]) -> None:
    """The program of a worker process: reads the batches of each request and writes them into an arena."""
    end_with_parent()
    one_thread()
    splits, plan = pickle.loads(connection.recv())
    while True:
        try:
            number, slot, name, request = connection.recv()
        except (EOFError, OSError):
            os._exit(0)
        if number == TAKEN:
            splits[name].samples.take(slot, request)
            continue
        try:
            batches, events = splits[name].fetch_noted(request)
            if plan is not None:
                batches = [plan(batch) for batch in batches]
            message = number, slot, arenas[slot].write((batches, events)), None
        except Exception as error:  # it is raised in the main process
            message = number, slot, 0, portable(error)
        connection.send(message)


def portable(error: Exception) -> Exception:
    """Returns the error itself, or a RuntimeError with its text if it cannot be pickled."""
    try:
        return error if type(pickle.loads(pickle.dumps(error))) is type(error) else RuntimeError(str(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def obstacle(splits: Mapping[str, Split], plan: Plan | None = None) -> str:
    """Returns what cannot be sent to a worker process, and why; empty if everything can be sent."""
    for part_name, part in [("the model", plan), *(item for split in splits.values() for item in sent_parts(split))]:
        try:
            pickled(part)
        except Exception as error:
            kind = f"{type(part).__module__}.{type(part).__qualname__}"
            return f"{part_name} ({kind}) cannot be sent to a worker process: {error}"
    return ""


def sent_parts(split: Split) -> Iterable[tuple[str, Any]]:
    """Returns the parts of a split that user-defined classes may replace, with their names in messages."""
    return split.recording().parts().items()
