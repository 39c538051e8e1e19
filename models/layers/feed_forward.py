"""Feed-forward layers of a block, which process each token separately after attention, and layers with separate weights
for groups of inputs.

In YAML: `feed_forward: gelu`, `feed_forward: {use: swiglu, ratio: 2.67}`;
`own_layers: {groups: [[image], [text, title]]}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..initialization import copied
from .linear import Linear, laid_together, linear


class FeedForward(nn.Module):
    """Base class of the feed-forward layers. A layer maps (b, n, d) to (b, n, d), each token separately. `down` is its
    last matrix, from the hidden width to d."""

    down: Linear
    reads_context: ClassVar[bool] = False
    """Whether `forward` has a second argument, the `AttentionContext`: which slots are padding (`tokens`), and a list
    for loss terms (`losses`)."""


def hidden_width(width: int, ratio: float, multiple_of: int = 1) -> int:
    """Returns the hidden width: `ratio` times `width`, rounded, then rounded up to a multiple of `multiple_of`. Raises
    ValueError unless 0 < ratio <= 1,024 and 1 <= multiple_of <= 2**20."""
    if not 0 < ratio <= 1024:
        raise ValueError(f"ratio must be more than 0 and at most 1,024, not {ratio}")
    if not 1 <= multiple_of <= 2**20:
        raise ValueError(f"multiple_of must be from 1 to {2**20:,}, not {multiple_of}")
    return -(-max(round(width * ratio), 1) // multiple_of) * multiple_of


class TwoMatrices(FeedForward, ABC):
    """Base class of layers with two matrices and an activation between them (Vaswani et al. 2017, arXiv:1706.03762).
    The hidden width h is `ratio` times the width d."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4):
        super().__init__()
        hidden = hidden_width(width, ratio)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    @abstractmethod
    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        """Returns the result of the elementwise function between the two matrices."""

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        return self.down(self.activation(self.up(x)))


class Gelu(TwoMatrices):
    """GELU activation (GPT-2, BERT, ViT). `approximate` is `tanh` (the approximation that GPT-2 uses) or `none`
    (exact). Raises ValueError for any other value."""

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 4, approximate: str = "tanh"):
        super().__init__(width, bias, ratio=ratio)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate must be 'none' or 'tanh', not {approximate!r}")
        self.approximate = approximate

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        return F.gelu(x, approximate=self.approximate)


class Relu(TwoMatrices):
    """ReLU activation: the original transformer (arXiv:1706.03762)."""

    activation = staticmethod(F.relu)


class SquaredRelu(TwoMatrices):
    """Two matrices with the squared ReLU, max(x, 0)², in between (Primer, So et al. 2021, arXiv:2109.08668)."""

    def activation(self, x: Float[Tensor, "*b h"]) -> Float[Tensor, "*b h"]:
        return F.relu(x).square()


class Swiglu(FeedForward):
    """SiLU gate times a linear branch (Shazeer 2020, arXiv:2002.05202). The layer has three matrices; with ratio 8/3
    they have about the number of parameters of two matrices with ratio 4. The hidden width is `ratio` times the width,
    rounded up to a multiple of `multiple_of`."""

    activation = staticmethod(F.silu)

    def __init__(self, width: int, bias: bool = True, *, ratio: float = 8 / 3, multiple_of: int = 8):
        super().__init__()
        hidden = hidden_width(width, ratio, multiple_of)
        self.gate = Linear(width, hidden, bias=bias)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if torch.is_grad_enabled():  # one product instead of two; in generation, copying the weights would cost more
            gate, up = linear(x, *laid_together(self.gate, self.up)).chunk(2, dim=-1)
        else:
            gate, up = self.gate(x), self.up(x)
        return self.down(self.activation(gate) * up)


class Geglu(Swiglu):
    """GELU gate (tanh approximation) times a linear branch (Shazeer 2020, arXiv:2002.05202). T5 version 1.1 uses it."""

    activation = staticmethod(partial(F.gelu, approximate="tanh"))


@dataclass(frozen=True, kw_only=True)
class OwnLayers:
    """Separate weights for `groups` of inputs. Each group is a list of names of inputs, and every input is in exactly
    one group. `layers` names the layers that exist once per group: `feed_forward`, and the matrices `query`, `key`,
    `value` and `out` of attention. Each token passes through the layers of the group of its input; core tokens belong
    to the first group. Attention still connects the tokens of all groups. The number of operations per step does not
    change. Only `feed_forward` is the design of VLMo (Bao et al. 2022, arXiv:2111.02358); all five layers are the
    design of Mixture-of-Transformers (Liang et al. 2025, arXiv:2411.04996). Raises ValueError for fewer than two
    groups, an empty group, an input that occurs twice, no layers, or a repeated layer."""

    groups: Sequence[Sequence[str]]
    layers: Sequence[Literal["feed_forward", "query", "key", "value", "out"]] = ("feed_forward",)

    def __post_init__(self):
        inputs = [name for group in self.groups for name in group]
        if len(self.groups) < 2 or not all(self.groups) or len({*inputs}) < len(inputs):
            raise ValueError(
                f"groups must be at least two lists, none empty, with every input in only one, not {self.groups}"
            )
        if not self.layers or len({*self.layers}) < len(self.layers):
            raise ValueError(f"layers must name at least one layer, and none twice, not {self.layers}")

    def numbered(self, names: Sequence[str]) -> list[list[int]]:
        """Returns one list per group with the numbers of its inputs. `names` are all inputs of the model; they are
        numbered from 1. The first list also contains 0, the number of core tokens and padding. Raises ValueError if the
        groups lack one of `names` or contain another name."""
        inputs = {name for group in self.groups for name in group}
        if differing := inputs.symmetric_difference(names):
            text = f"groups must name each input once ({', '.join(names)})"
            raise ValueError(f"{text}; missing or unknown: {', '.join(sorted(differing))}")
        numbers = {name: number for number, name in enumerate(names, start=1)}
        first, *others = ([numbers[name] for name in group] for group in self.groups)
        return [[*first, 0], *others]


class EachInput(nn.Module):
    """One copy of `layer` for each group of inputs (`OwnLayers`). Each token passes through the copy of its group.
    Raises ValueError for a layer that reads the context of all tokens."""

    reads_context: ClassVar[bool] = False

    def __init__(self, layer: nn.Module, groups: int):
        super().__init__()
        if getattr(layer, "reads_context", False):
            raise ValueError(f"own_layers: {type(layer).__name__} reads all tokens, so groups cannot have their own")
        self.layers = nn.ModuleList(copied(layer) for _ in range(groups))

    def forward(self, x: Float[Tensor, "b n d"], slots: Sequence[Tensor]) -> Float[Tensor, "b n v"]:
        """Returns the outputs (b, n, v) of all tokens. `slots` has one tensor per group: the slots of the tokens of
        this group, as row * n + column (`slots_of`)."""
        flat = x.flatten(0, 1)
        outputs = [layer(flat.index_select(0, group)) for layer, group in zip(self.layers, slots, strict=True)]
        merged = outputs[0].new_zeros(len(flat), outputs[0].shape[-1])
        for output, group in zip(outputs, slots):
            merged = merged.index_copy(0, group, output)
        return merged.view(*x.shape[:-1], -1)


def slots_of(groups: Sequence[Sequence[int]], input: Int[Tensor, "b n"]) -> tuple[Tensor, ...]:
    """Returns one tensor per group: the slots of the tokens of this group, as row * n + column. `groups` are numbers of
    inputs (`OwnLayers.numbered`), `input` is `Tokens.input`."""
    flat = input.flatten()
    return tuple(torch.isin(flat, torch.tensor(group, device=flat.device)).nonzero()[:, 0] for group in groups)


def passed(layer: nn.Module, x: Float[Tensor, "b n d"], slots: Sequence[Tensor] | None) -> Float[Tensor, "b n v"]:
    """Returns the output of a layer for all tokens. `slots` are the slots of each group of inputs (`slots_of`); they
    are only used if the layer is an `EachInput`."""
    return layer(x, slots) if isinstance(layer, EachInput) else layer(x)
