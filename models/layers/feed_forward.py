"""Feed-forward layers of a block: what each token computes by itself after it has read the others; and layers of
their own for groups of inputs.

In YAML: `feed_forward: gelu`, `feed_forward: {use: swiglu, ratio: 2.67}`;
`own_layers: {groups: [[image], [text, title]]}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..initialization import copied
from .linear import Linear, laid_together, linear


class FeedForward(nn.Module):
    """Base of the feed-forward layers: (b, n, d) to (b, n, d), token by token; `down` is the matrix from the hidden
    width back to d."""

    down: Linear


def hidden_width(width: int, ratio: float, multiple_of: int = 1) -> int:
    """The width between the matrices: `ratio` times `width`, rounded, then rounded up to a multiple of `multiple_of`.
    Raises ValueError unless 0 < ratio <= 1,024 and 1 <= multiple_of <= 2**20."""
    if not 0 < ratio <= 1024:
        raise ValueError(f"ratio must be more than 0 and at most 1,024, not {ratio}")
    if not 1 <= multiple_of <= 2**20:
        raise ValueError(f"multiple_of must lie between 1 and {2**20:,}, not {multiple_of}")
    return -(-max(round(width * ratio), 1) // multiple_of) * multiple_of


class TwoMatrices(FeedForward, ABC):
    """Base of the plain layers: two matrices and an activation between them, as in the 2017 paper (arXiv:1706.03762).
    The hidden width h is `ratio` times the width d."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4):
        super().__init__()
        hidden = hidden_width(width, ratio)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    @abstractmethod
    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """The elementwise function between the matrices."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.down(self.activation(self.up(x)))


class Gelu(TwoMatrices):
    """A GELU (GPT-2, BERT, ViT). `approximate` is `tanh`, the form that GPT-2 uses, or `none`, the exact one; else it
    raises ValueError."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4, approximate: str = "tanh"):
        super().__init__(width, bias, ratio=ratio)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
        self.approximate = approximate

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        return F.gelu(x, approximate=self.approximate)


class Relu(TwoMatrices):
    """A ReLU: the 2017 transformer."""

    activation = staticmethod(F.relu)


class SquaredRelu(TwoMatrices):
    """A squared ReLU (Primer, So et al. 2021, arXiv:2109.08668)."""

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        return F.relu(x).square()


class Swiglu(FeedForward):
    """A SiLU gate times a linear branch (Shazeer 2020, arXiv:2002.05202). With its three matrices, ratio 8/3 gives as
    many parameters as ratio 4 with two; the hidden width is rounded up to a multiple of `multiple_of`."""

    activation = staticmethod(F.silu)

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 8 / 3, multiple_of: int = 8):
        super().__init__()
        hidden = hidden_width(width, ratio, multiple_of)
        self.gate = Linear(width, hidden, bias=bias)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if torch.is_grad_enabled():  # one product instead of two; while generating, copying weights would cost more
            gate, up = linear(x, *laid_together(self.gate, self.up)).chunk(2, dim=-1)
        else:
            gate, up = self.gate(x), self.up(x)
        return self.down(self.activation(gate) * up)


class Geglu(Swiglu):
    """A GELU gate (its tanh form) times a linear branch (Shazeer 2020, arXiv:2002.05202), as in T5 version 1.1."""

    activation = staticmethod(partial(F.gelu, approximate="tanh"))


@dataclass(frozen=True, kw_only=True)
class OwnLayers:
    """Which layers of a block are held once for each of several `groups` of inputs: `layers`, of `feed_forward` and the
    four matrices of attention. Tokens of all groups meet in attention all the same; each group computes by weights of
    its own, without a router (VLMo, Bao et al. 2022, arXiv:2111.02358: feed-forward layers; Mixture-of-Transformers,
    Liang et al. 2025, arXiv:2411.04996: all). Every input is in one group; core tokens are in the first. A step costs
    as many operations as with one layer. Raises ValueError for less than two groups, an input in two of them, and a
    layer twice or not at all."""

    groups: Sequence[Sequence[str]]
    layers: Sequence[Literal["feed_forward", "query", "key", "value", "out"]] = ("feed_forward",)

    def __post_init__(self):
        named = [name for group in self.groups for name in group]
        if len(self.groups) < 2 or not all(self.groups) or len({*named}) < len(named):
            raise ValueError(
                f"groups must be at least two, none empty, with each input in one of them, not {self.groups}"
            )
        if not self.layers or len({*self.layers}) < len(self.layers):
            raise ValueError(f"layers must name at least one layer, none twice, not {self.layers}")

    def numbered(self, names: Sequence[str]) -> list[list[int]]:
        """The numbers of each group's inputs, which are `names` from 1 on; 0, core tokens and padding, is in the first.
        Raises ValueError where these are not the inputs of the groups."""
        named = {name for group in self.groups for name in group}
        if wrong := named.symmetric_difference(names):
            raise ValueError(f"groups must name each input once ({', '.join(names)}); see {', '.join(sorted(wrong))}")
        numbers = {name: number for number, name in enumerate(names, start=1)}
        first, *others = ([numbers[name] for name in group] for group in self.groups)
        return [[*first, 0], *others]


class EachInput(nn.Module):
    """A layer for each of several groups of inputs (`OwnLayers`), of the same shape as `layer`: every token passes that
    of its group."""

    def __init__(self, layer: nn.Module, groups: int):
        super().__init__()
        self.layers = nn.ModuleList(copied(layer) for _ in range(groups))

    def forward(self, x: Float[Tensor, "b n d"], slots: Sequence[Tensor]) -> Float[Tensor, "b n v"]:
        """`slots` are those of each group's tokens, as row * n + column (`slots_of`)."""
        flat = x.flatten(0, 1)
        made = [layer(flat.index_select(0, there)) for layer, there in zip(self.layers, slots, strict=True)]
        found = made[0].new_zeros(len(flat), made[0].shape[-1])
        for values, there in zip(made, slots):
            found = found.index_copy(0, there, values)
        return found.view(*x.shape[:-1], -1)


def slots_of(groups: Sequence[Sequence[int]], input: Int[Tensor, "b n"]) -> tuple[Tensor, ...]:
    """The slots of the tokens of each group of inputs, as row * n + column."""
    flat = input.flatten()
    return tuple(torch.isin(flat, torch.tensor(group, device=flat.device)).nonzero()[:, 0] for group in groups)


def passed(layer: nn.Module, x: Float[Tensor, "b n d"], slots: Sequence[Tensor] | None) -> Float[Tensor, "b n v"]:
    """The output of a layer that all tokens pass, or of each group's own."""
    return layer(x, slots) if isinstance(layer, EachInput) else layer(x)
