"""The one data structure the core reads: a set of tokens, each with a few descriptors.

A transformer does not care where a token comes from. All that it may know besides a token's content is here: which
named input it belongs to, which sample, which item, and its position. Everything about visibility
(`models/attention/graph.py`) and relative position (`models/layers/relative.py`) is computed from these four fields.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

PADDING = 0
"""The sample number of slots that hold no token."""
CORE = 0
"""The input number of tokens that belong to the core itself (class and register tokens)."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The descriptors of a batch of token rows: all that attention may look at besides content.

    One row in which two samples are packed, a picture of 1 x 2 patches with a caption of two words, then a text of two
    words, and one slot of padding; the YAML names image (1) and text (2), the axes are order, row and column:

        input              1    1    2    2    2    2    0
        sample             1    1    1    1    2    2    0
        item               1    1    2    2    3    3    0
        position[..., 0]   0    1    2    3    4    5    6
        position[..., 1]   0    0   nan  nan  nan  nan  nan
        position[..., 2]   0    1   nan  nan  nan  nan  nan

    `position[..., 0]` is the running order in the row (unique within a row, so that it also names the token); the other
    axes are coordinates inside the item (row, column, seconds). A token that has no coordinate on an axis carries NaN
    there: it is near nothing on that axis, comes after everything (`graph.Causal`), and rotary does not rotate it.
    """

    input: Int[Tensor, "b n"]
    """Which named input, numbered from 1 in YAML order; 0: class and register tokens, which belong to the core."""
    sample: Int[Tensor, "b n"]
    """Which sample of a packed row, unique over the batch; 0: padding."""
    item: Int[Tensor, "b n"]
    """Which chopped item (an image, a clip, a document), unique over the batch; 0: padding."""
    position: Float[Tensor, "b n a"]
    """Coordinates by axis, axis 0 the running order; NaN: none on that axis."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and slots: (b, n)."""
        return tuple(self.sample.shape)

    def to(self, device: torch.device | str) -> Tokens:
        """The same descriptors on another device; the copy does not block the CPU."""
        return type(self)(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def select(self, *index: slice | Tensor) -> Tokens:
        """Some rows and slots, e.g. `tokens.select(slice(None), slice(5, 6))` for the sixth token of each row."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class TokenSet(Tokens):
    """A batch of embedded tokens and all that the core may know about them."""

    x: Float[Tensor, "b n d"]
    """The vectors of the tokens."""


def plain_tokens(
    rows: int, length: int, *, start: int = 0, axes: int = 1, input: int = 1, device: torch.device | str = "cpu"
) -> Tokens:
    """Descriptors of the commonest batch: every row one full sample of one input, one item, no padding.

    `start` is the running order of the first token (more than 0 when a cache already holds that many), `input` the
    number of the input. Of the `axes` position axes all but the running order are NaN.
    """
    sample = torch.arange(1, rows + 1, device=device)[:, None].expand(rows, length)
    position = torch.full((rows, length, axes), torch.nan, device=device)
    position[..., 0] = torch.arange(start, start + length, dtype=torch.float32, device=device)
    inputs = torch.full((rows, length), input, device=device)
    return Tokens(input=inputs, sample=sample, item=sample, position=position)


def within_samples(tokens: Tokens, every: Tokens | None = None) -> Tokens:
    """The same tokens with their running order counted from the first token of their sample, as graphs see it.

        sample            1  1  1  2  2  0        two samples packed into one row, and padding
        position[..., 0]  0  1  2  3  4  5        becomes  0  1  2  0  1  0

    `every` holds all tokens of the rows, where `tokens` are only some of them (a new token while others are cached).
    The order inside a sample does not depend on where in a row the sample is: alone, packed behind another, behind
    padding, in a cache.
    """
    every = tokens if every is None else every
    order = every.position[..., 0]
    most = int(every.sample.max()) if every.sample.numel() else 0
    first = torch.full((len(order), most + 1), torch.inf, device=order.device)
    first = first.scatter_reduce(1, every.sample, order, "amin")
    position = tokens.position.clone()
    position[..., 0] -= first.gather(1, tokens.sample)
    return replace(tokens, position=position)


def alike(rows: Tensor) -> Tensor:
    """The first row, to be broadcast, where all rows are equal; else all rows. Always all rows on a GPU and in compiled
    code, where comparing them would wait for the device."""
    on_cpu = rows.device.type == "cpu" and not torch.compiler.is_compiling()
    return rows[:1] if on_cpu and bool((rows == rows[:1]).all()) else rows
