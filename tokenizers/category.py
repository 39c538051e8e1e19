"""Categories over time as tokens. Every time step holds one category, such as an action, or a grid of categories, such
as the surroundings of an agent."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..files.reading import ITEM, DataError, read_bytes
from ..files.records import as_numbers, read_array
from ..models.batch import Chunks
from ..models.layers.norms import Norm
from ..models.layers.positions import AbsolutePosition, Learned
from .base import Chopper, Chunk, Example
from .media.clock import Stream, clock_of, split_clock, with_clock
from .media.files import as_tensor
from .media.simple_features import shares

MAX_ROWS = 2**20
"""The maximum of `size` (categories) times the number of positions in the grid: the rows of the embedding table."""

NUMBERS = 4096
"""The largest number of simple features."""


@dataclass(frozen=True, kw_only=True)
class CategoryChopper(Chopper):
    """Converts categories to tokens. A category is a number from 0 to `size` - 1. Every time step has one category, or
    a grid of categories of the given `shape`. `cut` is the number of leading axes along which a grid is cut into
    pieces. Each piece becomes one token: with `shape: [7, 7, 3]` a grid becomes 1 token of 147 categories (cut: 0), 7
    tokens of 21 (cut: 1), or 49 tokens of 3 (cut: 2). Pieces whose first category is in `empty` are dropped. The times
    of the steps are read from the data (`seconds`). If the data contains no times, there are `rate` time steps per
    second, the first at 0 seconds.

    Left: three actions of two possible ones. Middle and right: two grids of 2 x 2 cells with three categories, complete
    and cut along the first axis. Category c at position p of the complete grid (row by row, from 0) has the value
    3 p + c. The coordinate of a token is the time of its step in seconds, here with one step per second.

        values       [[0], [1], [1]]    [[2, 3, 6, 10], [2, 3, 7, 10]]    [[2, 3], [6, 10], [2, 3], [7, 10]]
        coordinates  0  1  2            0  1                              0  0  1  1
    """

    axes: ClassVar[tuple[str, ...]] = ("seconds",)
    size: int
    shape: tuple[int, ...] = ()
    cut: int = 0
    empty: tuple[int, ...] = ()
    rate: float = 1.0

    def __post_init__(self):
        if self.size < 2 or any(length < 1 for length in self.shape):
            lengths = f"not {self.size} and {self.shape}"
            raise ValueError(f"size must be at least 2, and the numbers in shape at least 1, {lengths}")
        if self.size * math.prod(self.shape) > MAX_ROWS:
            count = math.prod(self.shape)
            raise ValueError(f"size ({self.size}) times the number of positions ({count}) is more than {MAX_ROWS:,}")
        if not 0 <= self.cut <= len(self.shape):
            raise ValueError(f"cut must be from 0 to {len(self.shape)}, the number of axes in shape, not {self.cut}")
        if self.empty and (not self.cut or not all(0 <= category < self.size for category in self.empty)):
            problem = f"not {list(self.empty)}" if self.cut else "and needs cut to be at least 1"
            raise ValueError(f"empty must hold categories from 0 to {self.size - 1}, {problem}")
        if not 0 < self.rate < math.inf:
            raise ValueError(f"rate must be more than 0, not {self.rate}")

    @property
    def piece_size(self) -> int:
        """The number of categories per piece. A piece becomes one token."""
        return math.prod(self.shape[self.cut :])

    @property
    def pieces(self) -> int:
        """The number of pieces per time step, empty ones included."""
        return math.prod(self.shape[: self.cut])

    @property
    def choices(self) -> int | None:
        return None if self.shape else self.size

    def decode(self, raw: Any) -> Stream:
        """Returns categories (times, *shape) as int64, with their times if `raw` contains times. `raw` is a number, an
        array (times, *shape), {"values": array, "seconds": (times,)}, {"values": array, "interval": 0.1}, a text that
        contains a number or a list, or the path or the bytes of a NumPy file (`.npy`). Raises DataError for any other
        value, for another shape, if there are no time steps, if a category is not a whole number from 0 to `size`
        - 1, and in the cases of `with_clock`."""
        raw = as_numbers(raw)
        raw = read_bytes(raw, ITEM) if isinstance(raw, str | os.PathLike) else raw
        raw, seconds = split_clock(read_array(raw, "it") if isinstance(raw, bytes) else raw)
        values = as_tensor(raw, "the categories")
        values = values[None] if values.dim() == 0 else values
        if values.dim() != 1 + len(self.shape) or tuple(values.shape[1:]) != self.shape or not len(values):
            expected = f"(times{''.join(f', {length}' for length in self.shape)}{'' if self.shape else ','})"
            raise DataError(f"categories must have the shape {expected}, not {tuple(values.shape)}")
        invalid = ~((values >= 0) & (values < self.size) & (values == values.round()))
        if invalid.any():
            first = values[invalid][0].item()
            raise DataError(f"categories must be whole numbers from 0 to {self.size - 1}, not {first:g}")
        return with_clock(values.long(), seconds)

    def count(self, item: Stream) -> int:
        return int(self._nonempty(clock_of(item, self.rate)[0]).sum()) if self.empty else len(item) * self.pieces

    def _nonempty(self, values: Int[Tensor, "t *shape"]) -> Bool[Tensor, "p"]:
        """Returns a mask over the pieces of all time steps: True for pieces that become tokens."""
        return ~torch.isin(values.reshape(-1, self.piece_size)[:, 0], torch.tensor(self.empty, dtype=torch.long))

    def chop(self, item: Stream) -> Chunk:
        """Returns the tokens: `values` (t, piece_size) holds category + `size` * position in the grid, and the
        coordinates (t, 1) hold the times."""
        values, seconds = clock_of(item, self.rate)
        nonempty = self._nonempty(values)
        values = values.flatten(1) if self.shape else values[:, None]
        values = (values + self.size * torch.arange(values.shape[1])).reshape(-1, self.piece_size)[nonempty]
        return Chunk(values, len(values), seconds.repeat_interleave(self.pieces)[nonempty, None])

    def simple_features(self, item: Stream) -> np.ndarray | None:
        """Returns how often each category occurs at each position of the grid, and the categories of the last time
        step, one-hot; None if these are more than NUMBERS numbers."""
        values = clock_of(item, self.rate)[0].reshape(len(item), -1).numpy()
        if 2 * values.shape[1] * self.size > NUMBERS:
            return None
        return np.concatenate([shares(values, self.size), shares(values[-1:], self.size)])

    def draw(self, canvas: Any, item: Stream) -> None:
        """Draws the category over time as steps, or grids as one column per time step, with categories as colours."""
        values, seconds = clock_of(item, self.rate)
        if self.shape:
            canvas.imshow(values.reshape(len(values), -1).T.numpy(), aspect="auto", cmap="tab20", vmin=0)
            canvas.set(xlabel="time step", ylabel="position in the grid")
            return
        canvas.step(seconds.numpy(), values.numpy(), where="post", marker=".")
        canvas.set(xlabel="seconds", ylabel="category", ylim=(-0.5, self.size - 0.5))


class CategoryTokenizer(nn.Module):
    """Maps categories to vectors: the sum of one learned vector per category and position in the grid, plus an absolute
    position. `position`: the absolute position that is added to the vector of each token; null: none. `hidden` is the
    width of a multilayer perceptron after the sum, in which the categories of a token interact (0: no perceptron).
    `norm` normalises the vector of each token.

    `properties` is the number of adjacent categories that describe one object, for example 3 for the kind, the colour
    and the state of the object in a cell. All objects then share the same weights, and a learned vector for the
    position of the object in the grid is added. A linear layer combines the `hidden` features of all objects of a
    token. With `hidden: 0` the vectors of the objects are added instead."""

    Chopper = CategoryChopper

    def __init__(
        self, chopper: CategoryChopper, width: int, context: int, *,
        position: Callable[..., AbsolutePosition] | None = Learned, hidden: int = 0, properties: int | None = None,
        norm: Callable[[int], Norm] | None = None,
    ):  # fmt: skip
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden must be at least 0, not {hidden}")
        if properties is not None and (properties < 1 or chopper.piece_size % properties):
            raise ValueError(f"properties must divide the {chopper.piece_size} categories of a token, not {properties}")
        positions, objects = chopper.piece_size * chopper.pieces, chopper.piece_size // properties if properties else 1
        self.properties = properties or positions
        self.embedding = nn.Embedding(chopper.size * self.properties, hidden or width)
        self.thing = nn.Embedding(positions // self.properties, hidden or width) if properties else None
        layers = [nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()] if hidden else []
        self.layers, self.out = nn.Sequential(*layers), nn.Linear(objects * hidden, width) if hidden else None
        self.position = position(width, context) if position else None
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, chunks: Chunks) -> Float[Tensor, "t d"]:
        if self.thing is None:
            objects = self.embedding(chunks.values).sum(1)[:, None]
        else:
            values = chunks.values.unflatten(1, (-1, self.properties))  # tokens, objects, properties
            rows = self.embedding.num_embeddings
            objects = self.embedding(values % rows).sum(2) + self.thing(values[..., 0] // rows)
        objects = self.layers(objects)
        tokens = objects.sum(1) if self.out is None else self.out(objects.flatten(1))
        return self.norm(tokens if self.position is None else tokens + self.position.of(chunks))


EXAMPLE = Example(
    options={"size": 3},
    items=lambda: [np.arange(6) % 3, np.arange(1, 7) % 3],
)
