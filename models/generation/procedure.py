"""How a task generates items by its own procedure (`Task.sample`), instead of token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..batch import Batch
from .refine import Refining
from .sampling import Sampling, Streams


def ignore(items: list[Any]) -> None:
    """Does nothing. It is the default of `Procedure.show` and of `Generating.show`."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """The settings with which a task generates one item for each sample of a batch."""

    name: str
    """The name of the task, which is also the name of its head in `Model.heads`."""
    streams: Streams
    """The random numbers of each item, which do not depend on the other items of the batch."""
    refining: Refining = field(default_factory=Refining)
    """The number of steps."""
    sampling: Sampling = field(default_factory=Sampling)
    """The temperature, and which ids may be drawn."""
    guidance: float = 1.0
    """The weight of classifier-free guidance; 1: no guidance."""
    without: Batch | None = None
    """The same samples without their other inputs, for guidance; None: no guidance."""
    filled: Sequence[int] = ()
    """The positions of the tokens that are generated, if the others are those of the items of the batch; empty: all
    tokens are generated. Drafts of ids have masks instead."""
    show: Callable[[list[Any]], None] = ignore
    """A function that is called at the start and after each step, with the state of all items."""
