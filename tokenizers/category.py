"""Categories over time: which of a few things holds at each moment, such as an action, or a grid of them, such as what
an agent sees around itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..files.reading import ITEM, DataError, read_bytes
from ..files.records import as_numbers, read_array
from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk
from .media.clock import Stream, clock_of, split_clock, with_clock
from .media.files import as_tensor

MOST = 2**20
"""The most rows of the table: categories, times places."""


@dataclass(frozen=True, kw_only=True)
class CategoryChopper(Chopper):
    """Categories to tokens, one a moment: a number from 0 to `size` - 1, or in the place of one number a grid of them
    of the given `shape`, which is `cut` along so many of its first axes: a grid of 7 x 7 cells of 3 categories each is
    one token of all 147, 7 rows of 21 (cut: 1), or 49 cells of 3 (cut: 2). Of these pieces those whose first category
    is one of `empty` are left out. There are `rate` moments a second, the first at 0 seconds, or a clock says when each
    is.

    Three actions of two, one a second, and two views of 2 x 2 cells, each of which is one of 3 things: of the place p
    the numbers from 3 p on are its categories.

        values       [[0], [1], [1]]    [[2, 3, 6, 10], [2, 3, 7, 10]]    cut: 1  [[2, 3], [6, 10], [2, 3], [7, 10]]
        coordinates  0  1  2            0  1                                      0  0  1  1
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    size: int
    shape: tuple[int, ...] = ()
    cut: int = 0
    empty: tuple[int, ...] = ()
    rate: float = 1.0

    def __post_init__(self):
        if self.size < 2 or any(each < 1 for each in self.shape):
            raise ValueError(f"size must be at least 2 and shape hold numbers from 1, not {self.size} and {self.shape}")
        if self.size * math.prod(self.shape) > MOST:
            raise ValueError(f"{self.size} categories in {math.prod(self.shape)} places are more than {MOST:,}")
        if not 0 <= self.cut <= len(self.shape):
            raise ValueError(f"cut must be from 0 to {len(self.shape)}, the axes of shape, not {self.cut}")
        if self.empty and (not self.cut or not all(0 <= each < self.size for each in self.empty)):
            told = f"not {list(self.empty)}" if self.cut else "and tells of the pieces of a grid that is cut; cut is 0"
            raise ValueError(f"empty must hold categories from 0 to {self.size - 1}, {told}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be more than 0, not {self.rate}")

    @property
    def places(self) -> int:
        """How many categories a token holds."""
        return math.prod(self.shape[self.cut :])

    @property
    def pieces(self) -> int:
        """How many pieces a moment has: tokens, but for empty ones."""
        return math.prod(self.shape[: self.cut])

    @property
    def choices(self) -> int | None:
        return None if self.shape else self.size

    def decode(self, raw: Any) -> Stream:
        """The categories of a number, of an array (times, *shape), of {"values": such an array, "seconds": (times,)},
        of a text that holds a number or a list, or of the path or the bytes of NumPy's `.npy`. Raises DataError for
        anything else, for a category that is not there, and for a clock that does not rise."""
        raw = as_numbers(raw)
        raw = read_bytes(raw, ITEM) if isinstance(raw, str | os.PathLike) else raw
        raw, seconds = split_clock(read_array(raw, "it") if isinstance(raw, bytes) else raw)
        values = as_tensor(raw, "the categories")
        values = values[None] if values.dim() == 0 else values
        if values.dim() != 1 + len(self.shape) or tuple(values.shape[1:]) != self.shape or not len(values):
            expected = f"(moments{''.join(f', {each}' for each in self.shape)}{'' if self.shape else ','})"
            raise DataError(f"categories of shape {expected} are expected, not of shape {tuple(values.shape)}")
        wrong = ~((values >= 0) & (values < self.size) & (values == values.round()))
        if wrong.any():
            first = values[wrong][0].item()
            raise DataError(f"categories must be whole numbers from 0 to {self.size - 1}, not {first:g}")
        return with_clock(values.long(), seconds)

    def count(self, item: Stream) -> int:
        return int(self._kept(clock_of(item, self.rate)[0]).sum()) if self.empty else len(item) * self.pieces

    def _kept(self, values: Int[Tensor, "t *shape"]) -> Bool[Tensor, "p"]:
        """Which of the pieces of all moments are tokens."""
        return ~torch.isin(values.reshape(-1, self.places)[:, 0], torch.tensor(self.empty, dtype=torch.long))

    def chop(self, item: Stream) -> Chunk:
        """The numbers of each piece's categories, (t, places)."""
        values, seconds = clock_of(item, self.rate)
        kept = self._kept(values)
        values = values.flatten(1) if self.shape else values[:, None]
        values = (values + self.size * torch.arange(values.shape[1])).reshape(-1, self.places)[kept]
        return Chunk(values, len(values), seconds.repeat_interleave(self.pieces)[kept, None])

    def draw(self, canvas: Any, item: Stream) -> None:
        """The category over the seconds, as steps; of a grid every place's category as a colour, a moment a column."""
        values, seconds = clock_of(item, self.rate)
        if self.shape:
            canvas.imshow(values.reshape(len(values), -1).T.numpy(), aspect="auto", cmap="tab20", vmin=0)
            canvas.set(xlabel="token", ylabel="place")
            return
        canvas.step(seconds.numpy(), values.numpy(), where="post", marker=".")
        canvas.set(xlabel="seconds", ylabel="category", ylim=(-0.5, self.size - 0.5))


class CategoryTokenizer(nn.Module):
    """Categories to vectors: of each token the sum of a learned vector for each category by place, plus an absolute
    position where `position` is not null. `hidden` numbers between two matrices behind it (0: none) let one place
    change what another means. `norm` normalises each token's vector before it joins the set.

    `properties` says how many categories next to each other tell of one thing, such as the kind, the colour and the
    state of what is in a cell: all things are then read by the same weights, which also know the thing's place in the
    grid, `hidden` numbers each, before one matrix makes a token of those that it holds (hidden: 0: their sum)."""

    Chopper = CategoryChopper

    def __init__(
        self, chopper: CategoryChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned, hidden: int = 0, properties: int | None = None,
        norm: Callable[[int], Norm] | None = None,
    ):  # fmt: skip
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be at least 0, not {hidden}")
        if properties is not None and (properties < 1 or chopper.places % properties):
            raise ValueError(f"properties must divide the {chopper.places} categories of a token, not {properties}")
        places, things = chopper.places * chopper.pieces, chopper.places // properties if properties else 1
        self.properties = properties or places
        self.embedding = nn.Embedding(chopper.size * self.properties, hidden or width)
        self.thing = nn.Embedding(places // self.properties, hidden or width) if properties else None
        layers = [nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()] if hidden else []
        self.layers, self.out = nn.Sequential(*layers), nn.Linear(things * hidden, width) if hidden else None
        self.position = position(width, context) if position else None
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        if self.thing is None:
            found = self.embedding(chunks.values).sum(1)[:, None]
        else:
            each = chunks.values.unflatten(1, (-1, self.properties))  # tokens, things, properties
            thing, values = each[..., 0] // self.embedding.num_embeddings, each % self.embedding.num_embeddings
            found = self.embedding(values).sum(2) + self.thing(thing)
        found = self.layers(found)
        tokens = found.sum(1) if self.out is None else self.out(found.flatten(1))
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))
