"""The weights of attention. Fused kernels return messages, but not the weights with which they are summed. If the
values are an identity matrix, the message of a token *is* its row of weights; so the weights come from the same kernel
as the messages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..batch import SetPlan
from .kernels import Heads, KeyHeads, Layout


def attention_weights(
    layout: Layout, query: Heads, key: KeyHeads, bias: Tensor | None = None
) -> Float[Tensor, "b h n m"]:
    """Returns the weight with which each query reads each key, computed by `layout`. Each row adds up to 1, or to 0 for
    a query that reads no key.

    The kernels expect values of c channels like the keys, so the identity matrix is sent through the kernel in parts of
    c columns. For 3 tokens and 2 channels:

        first call  [1 0]   second call  [0 .]
                    [0 1]                [0 .]
                    [0 0]                [1 .]
    """
    b, g, m, c = key.shape
    identity = torch.eye(m, dtype=query.dtype, device=query.device)
    parts = []
    for columns in identity.split(c, dim=1):
        value = F.pad(columns, (0, c - columns.shape[1])).expand(b, g, m, c)
        parts.append(layout(query, key, value, bias, 0.0)[..., : columns.shape[1]])
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True, eq=False)
class Observed(Layout):
    """A layout that computes the same messages as `layout` and appends the weights of each call to `weights`."""

    layout: Layout
    weights: list[Float[Tensor, "b h n m"]] = field(default_factory=list)

    @property
    def adds_bias(self) -> bool:
        return self.layout.adds_bias

    @property
    def drops(self) -> bool:
        return self.layout.drops

    def __call__(self, query, key, value, bias, dropout):
        self.weights.append(attention_weights(self.layout, query, key, bias))
        return self.layout(query, key, value, bias, dropout)


def observed(planned: SetPlan) -> SetPlan:
    """Returns a planned set in which the layout of each layer, and of cross-attention, is `Observed`."""
    cross = None if planned.cross is None else Observed(planned.cross)
    return replace(planned, layouts=tuple(Observed(layout) for layout in planned.layouts), cross=cross)
