"""The input of a core: a set of tokens, each with four descriptors.

A transformer handles all tokens in the same way, regardless of their modality. In addition to the content of a token it
uses only the token's input, sample, item and position. Attention masks (`models/attention/graph.py`) and relative
positions (`models/layers/relative.py`) are computed from these four descriptors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PADDING = 0
"""The value of `Tokens.sample` in slots without a token."""
CORE = 0
"""The value of `Tokens.input` for core tokens: class and register tokens, which belong to no input of the YAML."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The descriptors of all tokens in a batch of rows: everything that attention uses except the content of the
    tokens.

    Example: a row with two packed samples, an image of 1 x 2 patches with a caption of two words, and a text of two
    words; the last slot is padding. The inputs are image (1) and text (2), the axes are order, row and column:

        input              1    1    2    2    2    2    0
        sample             1    1    1    1    2    2    0
        item               1    1    2    2    3    3    0
        position[..., 0]   0    1    2    3    4    5    6
        position[..., 1]   0    0   nan  nan  nan  nan  nan
        position[..., 2]   0    1   nan  nan  nan  nan  nan

    `position[..., 0]` is the running order in the row. It is unique within a row and thus identifies the token. All
    other axes are coordinates inside the item (row, column, seconds). NaN means that a token has no coordinate on an
    axis. On this axis the token has no neighbours (`graph.Window`), comes after all tokens with a coordinate
    (`graph.Causal`), and is not rotated (`Rotary`).
    """

    input: Int[Tensor, "b n"]
    """The number of the input, from 1 in YAML order; 0 for core tokens (class and register tokens) and padding."""
    sample: Int[Tensor, "b n"]
    """The number of the sample, unique in the batch; 0: padding."""
    item: Int[Tensor, "b n"]
    """The number of the item (an image, a clip, a document) to which the token belongs, unique in the batch; 0:
    padding."""
    position: Float[Tensor, "b n a"]
    """The coordinate of the token on each of the a axes; axis 0 is the running order. NaN: no coordinate."""

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows b and the number of slots per row n: (b, n)."""
        return tuple(self.sample.shape)

    def to(self, device: torch.device | str) -> Tokens:
        """Returns the descriptors on another device; the copy does not block the CPU."""
        return type(self)(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def select(self, *index: slice | Tensor) -> Tokens:
        """Returns the descriptors at an index of rows, or of rows and columns: `tokens.select(slice(None), slice(5,
        6))` returns those of the sixth token of each row."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class TokenSet(Tokens):
    """The vectors of a batch of tokens, with the descriptors of these tokens."""

    x: Float[Tensor, "b n d"]
    """The vectors of the tokens."""


def plain_tokens(
    rows: int, length: int, *, start: int = 0, axes: int = 1, input: int = 1, device: torch.device | str = "cpu"
) -> Tokens:
    """Returns the descriptors of `rows` rows of `length` tokens without padding. Each row is one sample with one item.

    `start` is the running order of the first token of each row (the number of cached tokens), `input` is the number of
    the input. `axes` is the number of position axes; all coordinates except the running order are NaN.
    """
    sample = torch.arange(1, rows + 1, device=device)[:, None].expand(rows, length)
    position = torch.full((rows, length, axes), torch.nan, device=device)
    position[..., 0] = torch.arange(start, start + length, dtype=torch.float32, device=device)
    inputs = torch.full((rows, length), input, device=device)
    return Tokens(input=inputs, sample=sample, item=sample, position=position)


def with_padding(tokens: Tokens, padding: Bool[Tensor, "b n"]) -> Tokens:
    """Returns plain tokens of which some are padding. The running order begins at the first token of each row that is
    no padding."""
    first = (~padding).int().argmax(1, keepdim=True)
    position = tokens.position.clone()
    position[..., 0] -= first
    return replace(tokens, sample=tokens.sample.masked_fill(padding, PADDING), position=position)


def within_samples(tokens: Tokens, every: Tokens | None = None) -> Tokens:
    """Returns the tokens with a running order that is counted from the first token of each sample. Graphs use this
    order.

        sample            1  1  1  2  2  0        two samples packed into one row, and padding
        position[..., 0]  0  1  2  3  4  5        becomes  0  1  2  0  1  0

    `every` holds all tokens of the rows, if `tokens` are only some of them (new tokens after cached tokens); None:
    `tokens` are all tokens. The order within a sample does not depend on the position of the sample in the row, on
    padding, or on the cache.
    """
    every = tokens if every is None else every
    order = every.position[..., 0]
    highest = int(every.sample.max()) if every.sample.numel() else 0
    first = torch.full((len(order), highest + 1), torch.inf, device=order.device)
    first = first.scatter_reduce(1, every.sample, order, "amin")
    position = tokens.position.clone()
    position[..., 0] -= first.gather(1, tokens.sample)
    return replace(tokens, position=position)


def alike(rows: Tensor) -> Tensor:
    """Returns the first row, (1, ...), if all rows are equal; it can then be broadcast. Otherwise returns all rows. On
    a GPU and in compiled code all rows are returned, because a comparison would wait for the device."""
    on_cpu = rows.device.type == "cpu" and not torch.compiler.is_compiling()
    return rows[:1] if on_cpu and bool((rows == rows[:1]).all()) else rows
