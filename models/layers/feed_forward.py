"""Feed-forward layers of a block: what each token computes by itself after it has read the others.

In YAML: `feed_forward: gelu`, `feed_forward: {use: swiglu, ratio: 2.67}`, and for inputs with layers of their own
`feed_forward: {use: each_input, of: gelu, groups: [[image], [text, title]]}`, beside a `common` one for all if it is
wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

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


class EachInput(FeedForward):
    """A layer `of` some kind for each of several `groups` of inputs: their tokens meet in attention, but each group
    computes by weights of its own, without a router (VLMo, Bao et al. 2022, arXiv:2111.02358; Mixture-of-Transformers,
    Liang et al. 2025, arXiv:2411.04996). Every input is in one group; core tokens are in the first. A step costs as
    many operations as with one layer. A `common` layer, if there is one, is passed by all tokens, and its output is
    added to that of their group (the shared expert of DeepSeekMoE, Dai et al. 2024, arXiv:2401.06066). Raises
    ValueError for less than two groups, and an input in two of them."""

    def __init__(
        self, width: int, bias: bool = True, *, groups: list[list[str]],
        of: Callable[[int, bool], FeedForward] = Gelu,
        common: Callable[[int, bool], FeedForward] | None = None,
    ):  # fmt: skip
        super().__init__()
        named = [name for group in groups for name in group]
        if len(groups) < 2 or not all(groups) or len({*named}) < len(named):
            raise ValueError(f"groups must be at least two, none empty, with each input in one of them, not {groups}")
        self.groups, self.layers = groups, nn.ModuleList(of(width, bias) for _ in groups)
        self.common = common and common(width, bias)
        self.inputs: list[list[int]] = []
        if any(isinstance(layer, EachInput) for layer in (*self.layers, self.common)):
            raise ValueError("of, common: a layer for each input holds no such layers itself")

    def name_inputs(self, names: Sequence[str]) -> None:
        """Tell which numbers the inputs have: those of `names` from 1 on. Raises ValueError where they are not those of
        the groups."""
        named = {name for group in self.groups for name in group}
        if wrong := named.symmetric_difference(names):
            raise ValueError(f"groups must name each input once ({', '.join(names)}); see {', '.join(sorted(wrong))}")
        numbers = {name: number for number, name in enumerate(names, start=1)}
        self.inputs = [[numbers[name] for name in group] for group in self.groups]
        self.inputs[0].append(0)  # core tokens and padding

    def slots(self, input: Int[Tensor, "b n"]) -> tuple[Tensor, ...]:
        """The slots of each group's tokens, as row * n + column, from the tokens' inputs."""
        flat = input.flatten()
        return tuple(torch.isin(flat, torch.tensor(g, device=flat.device)).nonzero()[:, 0] for g in self.inputs)

    def forward(self, x: Float[Tensor, "b n d"], groups: Sequence[Tensor]) -> Float[Tensor, "b n d"]:
        """`groups` are the `slots` of these tokens."""
        flat = x.flatten(0, 1)
        made = [layer(flat.index_select(0, slots)) for layer, slots in zip(self.layers, groups, strict=True)]
        found = made[0].new_zeros(flat.shape)
        for values, slots in zip(made, groups):
            found = found.index_copy(0, slots, values)
        found = found.view(x.shape)
        return found if self.common is None else found + self.common(x)
