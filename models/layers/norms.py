"""Normalisation layers of a block and their position in it: `norm: rms_norm`, `residual: post_norm` in YAML."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.Module):
    """Base class: maps (..., d) to (..., d). The first argument of a subclass is the width d."""


class LayerNorm(nn.LayerNorm, Norm):
    """Zero mean and unit variance over the last axis, then optional gain and shift (arXiv:1607.06450)."""

    def __init__(self, width: int, *, gain: bool = True, bias: bool = True, epsilon: float = 1e-5):
        super().__init__(width, eps=epsilon, elementwise_affine=gain, bias=bias)


class RmsNorm(nn.RMSNorm, Norm):
    """Unit root mean square over the last axis, then optional gain (Zhang & Sennrich 2019, arXiv:1910.07467).

    Half-precision input is normalised in the dtype of the gain. PyTorch does the same, but on a CPU with a warning,
    since it has no fused kernel for mixed dtypes there.
    """

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-6):
        super().__init__(width, eps=epsilon, elementwise_affine=gain)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if self.weight is None or x.dtype == self.weight.dtype:
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Residual(nn.Module):
    """Base class of residual connections, which add the output of a layer (the branch) to the residual stream, with
    dropout and with stochastic depth per row. `layer_scale` multiplies the branch by a learned vector that is
    initialised with this value (arXiv:2103.17239)."""

    def __init__(
        self, width: int, norm: Callable[[int], Norm], dropout: float, skip: float, *, layer_scale: float | None = None
    ):  # fmt: skip
        super().__init__()
        self.norm, self.dropout, self.skip = norm(width), nn.Dropout(dropout), skip
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def drop(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Returns the branch after scaling, dropout and stochastic depth, which drops rows with probability `skip`."""
        branch = self.dropout(branch if self.scale is None else branch * self.scale)
        if not self.training or not self.skip:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.skip
        return branch * (kept / (1 - self.skip)).to(branch.dtype)


class PreNorm(Residual):
    """Normalises the input of the layer and returns x + f(norm(x)), as in GPT-2 and most later models (Xiong et al.
    2020, arXiv:2002.04745)."""

    normalises_output = False

    def forward(self, x: Tensor, layer: Callable, *context) -> Tensor:
        return x + self.drop(layer(self.norm(x), *context))


class PostNorm(Residual):
    """Normalises the sum, norm(x + f(x)): the original transformer (arXiv:1706.03762) and BERT."""

    normalises_output = True

    def forward(self, x: Tensor, layer: Callable, *context) -> Tensor:
        return self.norm(x + self.drop(layer(x, *context)))
