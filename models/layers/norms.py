"""Normalisation layers of a block: `norm: layer_norm` or `norm: rms_norm` in YAML."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.Module):
    """Base: (..., d) to (..., d); a subclass takes the width d as its first argument."""


class LayerNorm(nn.LayerNorm, Norm):
    """Zero mean and unit variance over the last axis, then optional gain and shift (arXiv:1607.06450)."""

    def __init__(self, width: int, *, gain: bool = True, bias: bool = True, epsilon: float = 1e-5):
        super().__init__(width, eps=epsilon, elementwise_affine=gain, bias=bias)


class RmsNorm(nn.RMSNorm, Norm):
    """Unit root mean square over the last axis, then an optional gain (Zhang & Sennrich 2019, arXiv:1910.07467).

    Half-precision input is normalised in the dtype of the gain, as torch does too (on a CPU with a warning, since it
    has no fused kernel for mixed types there).
    """

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-6):
        super().__init__(width, eps=epsilon, elementwise_affine=gain)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if self.weight is None or x.dtype == self.weight.dtype:
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)
