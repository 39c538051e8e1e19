"""The parameter-free half of every tokenizer: how one raw item is chopped into tokens.

A tokenizer is one file with two halves. The *chopper* (here) is a frozen dataclass: its fields are the keys of the YAML,
it can be pickled to loader workers, and it can tell how many tokens an item becomes before anything is embedded. The
*embedder* is an `nn.Module` that turns the chunks of a batch into vectors of the model's width.

    raw value --decode--> item --augment (training only)--> item --chop--> Chunk --collate (a batch)--> Chunks.values
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def state(**options: Any) -> Any:
    """A field of a chopper that code fills in (what was learned of the training data, what a task wants of it): a default as for
    dataclasses.field. It is no key of the YAML and is not written to one; what must survive is kept by `save`."""
    return field(metadata={"state": True}, **options)


@dataclass(frozen=True)
class Chunk:
    """One chopped item: what its tokens are made of, how many there are, and where each stands on the tokenizer's axes."""

    values: Tensor
    """What `collate` will lay together: one row of values per token, or a whole image or clip that the embedder cuts."""
    count: int
    coordinates: Float[Tensor, "t a"] | None = None
    next_ids: Int[Tensor, "t"] | None = None
    """For ids: the id that comes after each token."""
    seed: int | None = None
    """While training: what decides how its embedder changes it at random."""


@dataclass(frozen=True, kw_only=True)
class Chopper:
    """Base of all choppers. A subclass's fields are keys of the YAML, but for those that are made with `state`."""

    axes: ClassVar[tuple[str, ...]] = ()
    """Names of the position axes that its tokens have besides the running order. A token stands on `seconds` where the last
    thing that it is made of is known, so that `causal(seconds)` lets no stream hear another's future."""

    kind: ClassVar[str] = "file"
    """What its raw values are: `image`, `sound`, `text`, or a `file` of any other sort."""
    fits_on: ClassVar[int | None] = None
    """How many items of the training data, drawn at random, `fit` looks at; None: all of them."""

    @property
    def needs_whole(self) -> bool:
        """Whether every token depends on all of its item, as where a clip is normalised by itself: not for `causal(seconds)`."""
        return False

    def fit(self, items: Callable[[], Iterable]) -> Chopper:
        """The chopper after it has looked at the training data (a vocabulary, a mean and a scale); most need not."""
        return self

    def save(self, folder: Path) -> None:
        """Keep what `fit` found in `RUN/assets/<input>/`, so that a run works without its data."""

    def load(self, folder: Path) -> Chopper:
        """The chopper with what `save` kept."""
        return self

    def decode(self, raw: Any) -> Any:
        """The item behind a raw value of a data set: a file's path or bytes, an array. Raises ValueError when it cannot."""
        return raw

    def augment(self, item: Any, random: np.random.Generator) -> Any:
        """The item changed at random, as it is while training; what `random` gives is fixed by seed, epoch and sample."""
        return item

    def count(self, item) -> int:
        """How many tokens the item will become, without chopping it."""
        return self.chop(item).count

    def chop(self, item) -> Chunk:
        """Cut one item into tokens."""
        raise NotImplementedError

    def draw(self, canvas: Any, item: Any) -> None:
        """Draw one item and where it is cut, on matplotlib's Axes; by default the values of its tokens, one a column."""
        values = self.chop(item).values.float()
        canvas.imshow(values.flatten(1).T.numpy(), aspect="auto", cmap="viridis")
        canvas.set(xlabel="token", ylabel="value")

    def collate(self, chunks: Sequence[Chunk]) -> Tensor:
        """The values of several chopped items as one tensor, in order: what the embedder takes."""
        return torch.cat([chunk.values for chunk in chunks])
