"""Normalisation layers that can be handed to a block: `norm: layer_norm` or `norm: rms_norm` in YAML."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class Norm(nn.Module):
    """Base: vectors of a width to vectors of the same width; a subclass takes the width first."""


class LayerNorm(nn.LayerNorm, Norm):
    """Zero mean and unit variance over the last axis, then optional gain and shift (arXiv:1607.06450)."""

    def __init__(self, width: int, *, gain: bool = True, bias: bool = True, epsilon: float = 1e-5):
        super().__init__(width, eps=epsilon, elementwise_affine=gain, bias=bias)


class RmsNorm(nn.RMSNorm, Norm):
    """Unit root mean square over the last axis, then an optional gain (Zhang & Sennrich 2019, arXiv:1910.07467).

    Halves are normalised in the type of the gain, as torch does (which on a CPU warns of it, for want of a kernel).
    """

    def __init__(self, width: int, *, gain: bool = True, epsilon: float = 1e-6):
        super().__init__(width, eps=epsilon, elementwise_affine=gain)

    def forward(self, x: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        if self.weight is None or x.dtype == self.weight.dtype:
            return super().forward(x)
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)
