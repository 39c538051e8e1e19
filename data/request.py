"""Requests for batches of a split, and the base class of what reads them ahead of time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..models.batch import Batch
from .sampler import SampleIndex
from .skipped import Event


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is read from a split at once (see `Split.answer`)."""

    indices: Sequence[SampleIndex]
    training: bool = False
    """Whether this is a micro-batch for training, with all tasks and inputs."""
    tasks: Sequence[str] | None = None
    """The names of the tasks that are evaluated; None: the batch has no targets."""
    inputs: Collection[str] | None = None
    """The inputs that are read in addition to the predicted ones; None: all inputs."""
    targets: Collection[str] | None = None
    """The predicted inputs; None: those of the split."""
    apart: bool = False
    """Whether the batches also have the targets of each sample (`Batch.apart`)."""

    def text(self, split: str) -> str:
        """Returns a description for messages: `8 samples of train, the first with the number 17`."""
        return f"{len(self.indices)} samples of {split}, the first with the number {self.indices[0].number}"


class Feed:
    """Base class of what reads the requests for several splits ahead of time (see `feed.py`)."""

    def start(self) -> None:
        """Starts the threads or processes of the feed. Later notes on bad samples do not reach them."""
        raise NotImplementedError

    def submit(self, split: str, request: Request) -> Any:
        """Submits a request for the split with this name. Returns a ticket for `result`."""
        raise NotImplementedError

    def result(self, ticket: Any) -> tuple[list[Batch], list[Event]]:
        """Waits for a request. Returns its batches, and the notes on skipped data for `Skipped.replay`. Raises the
        error that reading raised."""
        raise NotImplementedError

    def discard(self, ticket: Any) -> None:
        """Gives up a request whose result is not needed."""
        raise NotImplementedError

    def ahead(self, training: bool) -> int:
        """Returns the number of requests that should be submitted in addition to the one that is used next."""
        raise NotImplementedError

    def take(self, split: str, index: int, samples: Sequence[Any]) -> None:
        """Passes the samples of a rollout to copies of a split in other processes (`rollouts.RolledOut.take`). The
        default does nothing, for feeds without processes."""

    def close(self) -> None:
        """Ends the threads or processes of the feed, and removes the feed from its splits."""
        raise NotImplementedError

    splits: Mapping[str, Any]
    """The splits (`split.Split`) by name."""

    def leave(self) -> None:
        """Removes the feed from its splits, which then read in the calling thread."""
        for split in self.splits.values():
            if split.feed is self:
                split.read_by(None)
