"""Normalisation layers of a block and their position in it: `norm: rms_norm`, `residual: post_norm` in YAML."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.Module):
    """Base class of normalisations, which map (..., d) to (..., d). The first argument of the constructor is d."""


class LayerNorm(nn.LayerNorm, Norm):
    """Normalises the last axis to zero mean and unit variance (arXiv:1607.06450). `gain`: whether each
    channel is then multiplied by a learned number; `bias`: whether a learned number is added. `epsilon` is added to the
    variance."""

    def __init__(self, width: int, *, gain: bool = True, bias: bool = True, epsilon: float = 1e-5):
        super().__init__(width, eps=epsilon, elementwise_affine=gain, bias=bias)


class RmsNorm(nn.RMSNorm, Norm):
    """Normalises the last axis to a root mean square of 1 (Zhang & Sennrich 2019, arXiv:1910.07467). `gain`:
    whether each channel is then multiplied by a learned number. `epsilon` is added to the mean square.

    Half-precision input is normalised in the dtype of the gain. PyTorch does the same, but prints a warning on a CPU,
    where it has no fused kernel for mixed dtypes.
    """

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-6):
        super().__init__(width, eps=epsilon, elementwise_affine=gain)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if self.weight is None or x.dtype == self.weight.dtype:
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class Residual(nn.Module):
    """Base class of residual connections. A residual connection adds the output of a layer (the branch) to its input
    (the residual stream). In training it applies dropout to the branch and skips the branch of a row with probability
    `skip` (stochastic depth). If `layer_scale` is a number, the branch is multiplied by a learned vector whose initial
    values are this number (arXiv:2103.17239); null: no factor."""

    def __init__(
        self, width: int, norm: Callable[[int], Norm], dropout: float, skip: float, *, layer_scale: float | None = None
    ):  # fmt: skip
        super().__init__()
        self.norm, self.dropout, self.skip = norm(width), nn.Dropout(dropout), skip
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def drop(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Returns the branch after `layer_scale`, dropout and stochastic depth. In training, stochastic depth sets each
        row of the branch to zero with probability `skip` and divides the other rows by 1 - `skip`."""
        branch = self.dropout(branch if self.scale is None else branch * self.scale)
        if not self.training or not self.skip:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.skip
        return branch * (kept / (1 - self.skip)).to(branch.dtype)


class PreNorm(Residual):
    """Normalises the input of the layer f and returns x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745). GPT-2 and
    most later models do this."""

    normalises_output = False

    def forward(self, x: Tensor, layer: Callable, *context) -> Tensor:
        return x + self.drop(layer(self.norm(x), *context))


class PostNorm(Residual):
    """Normalises the sum and returns norm(x + f(x)) for the layer f. The original transformer (arXiv:1706.03762) and
    BERT do this."""

    normalises_output = True

    def forward(self, x: Tensor, layer: Callable, *context) -> Tensor:
        return self.norm(x + self.drop(layer(x, *context)))
