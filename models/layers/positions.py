"""Absolute position embeddings. The model encodes positions in two ways:

* *Absolute* embeddings belong to the tokenizer of an input and are added to its tokens: `Learned`, `Sinusoidal`.
* *Relative* positions belong to the core and act inside attention, on `Tokens.position`: `Rotary` rotates queries and
  keys; `RelativeBias` (T5) and `Alibi` add a bias to the scores (relative.py).
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ..batch import Chunks

Wavelength = Annotated[float, Field(ge=1, le=1e12)]
"""The longest wavelength, divided by 2 pi. The wavelengths grow geometrically from 2 pi towards 2 pi times this value,
in the unit of the position (tokens, patches or seconds)."""


class AbsolutePosition(nn.Module):
    """Base class of the embeddings that are added to the tokens of an input. It maps the index of each token within its
    item (from 0) to a vector: (t) to (t, d). `length` is the maximum number of tokens per item. If it is null, this is
    the context of the model.
    """

    period: int = 1
    """If a generated text exceeds the context, the number of tokens that are removed is a multiple of `period`. Then
    the other tokens keep their index modulo `period`. 1: any number of tokens may be removed."""

    def __init__(self, width: int, context: int, length: int | None = None):
        super().__init__()
        self.length = length or context

    def of(self, chunks: Chunks) -> Float[Tensor, "*t d"]:
        """Returns the position embedding of each token in `chunks`."""
        return self(chunks.index)


class Learned(AbsolutePosition):
    """One learned vector for each index of a token within its item. GPT-2 and ViT use this embedding. `length` is the
    number of vectors; null: the context."""

    def __init__(self, width: int, context: int, *, length: int | None = None):
        super().__init__(width, context, length)
        self.table = nn.Embedding(self.length, width)

    def forward(self, index: Int[Tensor, "*t"]) -> Float[Tensor, "*t d"]:
        return self.table(index)


class LearnedSecond(Learned):
    """One learned vector for each second of a token's time coordinate, which is rounded down to full seconds. A
    decision transformer (Chen et al. 2021, arXiv:2106.01345) uses it for time steps. `length` is the number of vectors
    (null: the context); all later seconds use the last vector. Raises ValueError if the tokens do not have exactly one
    coordinate."""

    def of(self, chunks: Chunks) -> Float[Tensor, "*t d"]:
        if chunks.coordinates is None or chunks.coordinates.shape[1] != 1:
            raise ValueError("learned_second needs an input with a time axis in seconds, such as sensor or category")
        return self(chunks.coordinates[:, 0].floor().long().clamp(0, self.length - 1))


class Periodic(AbsolutePosition):
    """The sum of learned vectors, one for each of `periods`. The vector of a period p depends on the index of the token
    modulo p. For a music score with 4 notes (voices) per step and 16 steps per bar, the periods 4 and 64 encode the
    voice and the position in the bar, for any number of bars. Raises ValueError if `periods` is empty or contains a
    number below 2 or above 65,536."""

    def __init__(self, width: int, context: int, *, periods: list[int], length: int | None = None):
        super().__init__(width, context, length)
        if not periods or min(periods) < 2 or max(periods) > 65_536:
            raise ValueError(f"periods must be integers from 2 to 65,536, not {periods}")
        self.periods, self.period = periods, math.lcm(*periods)
        self.tables = nn.ModuleList(nn.Embedding(period, width) for period in periods)

    def forward(self, index: Int[Tensor, "*t"]) -> Float[Tensor, "*t d"]:
        embeddings = [table(index % period) for table, period in zip(self.tables, self.periods)]
        return torch.stack(embeddings).sum(0)


class Sinusoidal(AbsolutePosition):
    """Fixed sines and cosines of the index of a token (Vaswani et al. 2017, arXiv:1706.03762). Sines and cosines
    alternate from channel to channel. The wavelengths grow geometrically; `longest` is the longest one, divided by 2
    pi."""

    def __init__(self, width: int, context: int, *, length: int | None = None, longest: Wavelength = 10_000.0):
        super().__init__(width, context, length)
        self.register_buffer("table", self.waves(width, longest), persistent=False)

    def waves(self, width: int, longest: float) -> Float[Tensor, "l d"]:
        """Returns a table (l, d) with one vector for each index from 0 to l - 1, where l is `length`."""
        order = torch.arange(self.length, dtype=torch.float64)[:, None]
        angle = order * torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(longest) / width))
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, :width].float()

    def forward(self, index: Int[Tensor, "*t"]) -> Float[Tensor, "*t d"]:
        return self.table[index]


class SinesThenCosines(Sinusoidal):
    """Sinusoidal embeddings with the sines in the first half of the channels and the cosines in the second half.
    Whisper uses this order. Raises ValueError for a width that is odd or below 4."""

    def waves(self, width, longest):
        if width % 2 or width < 4:
            raise ValueError(f"sines_then_cosines needs an even width of at least 4, not {width}")
        steps = torch.arange(width // 2) * (-math.log(longest) / (width // 2 - 1))
        angle = torch.arange(self.length)[:, None] * steps.exp()
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class GridPosition(nn.Module):
    """Base class of the embeddings that are added to the tokens of an image. It maps the row and the column of each
    patch (from 0) to a vector: (t, 2) to (t, d). `grid` is (rows, columns), the numbers of patches of every image; None
    if the sizes of the images vary."""


class LearnedGrid(GridPosition):
    """One learned vector for each patch of an image of fixed size (ViT, Dosovitskiy et al. 2021, arXiv:2010.11929).
    Raises ValueError if the sizes of the images vary."""

    def __init__(self, width: int, grid: tuple[int, int] | None):
        super().__init__()
        if grid is None:
            raise ValueError(
                "learned_grid needs images of one 'size'; for varying sizes set position: sinusoidal_grid or null"
            )
        self.grid = grid
        self.table = nn.Embedding(grid[0] * grid[1], width)

    def forward(self, coordinates: Float[Tensor, "t 2"]) -> Float[Tensor, "t d"]:
        row, column = coordinates.long().unbind(-1)
        return self.table(row * self.grid[1] + column)


def interpolated(table: Float[Tensor, "p d"], grid: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "q d"]:
    """Returns a table of learned vectors for `size` (rows, columns), resampled from a table for `grid` (rows, columns)
    by bicubic interpolation with antialiasing. timm uses the same method."""
    image = rearrange(table.float(), "(row column) d -> 1 d row column", row=grid[0])
    resized = F.interpolate(image, size=size, mode="bicubic", antialias=True)
    return rearrange(resized, "1 d row column -> (row column) d").to(table.dtype)


class SinusoidalGrid(GridPosition):
    """Fixed embeddings for images of any size (`sincos2d` of big_vision; Beyer et al. 2022, arXiv:2205.01580). The
    channels are four quarters: sines of the column, cosines of the column, sines of the row, cosines of the row. The
    longest wavelength is `longest` times 2 pi patches. Raises ValueError if the width is not a multiple of 4."""

    def __init__(self, width: int, grid: tuple[int, int] | None, *, longest: Wavelength = 10_000.0):
        super().__init__()
        if width % 4:
            raise ValueError(f"sinusoidal_grid needs a width that is a multiple of 4, not {width}")
        steps = torch.arange(width // 4) / max(width // 4 - 1, 1)
        self.register_buffer("frequencies", longest**-steps, persistent=False)

    def forward(self, coordinates: Float[Tensor, "t 2"]) -> Float[Tensor, "t d"]:
        row, column = (values[:, None] * self.frequencies for values in coordinates.unbind(-1))
        return torch.cat([column.sin(), column.cos(), row.sin(), row.cos()], dim=-1)
