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


def computes_attention(layout: Layout) -> bool:
    """Whether a layout is a kernel of attention; the layouts of other blocks describe their tokens only."""
    return type(layout).__call__ is not Layout.__call__


def observed_layout(layout: Layout) -> Layout:
    """Returns a copy of a layout in which each kernel of attention, the layout itself or one of its fields, is
    `Observed`."""
    if computes_attention(layout):
        return Observed(layout)
    parts = {name: observed_layout(value) for name, value in vars(layout).items() if isinstance(value, Layout)}
    return replace(layout, **parts)


def recorded(layout: Layout) -> list[Float[Tensor, "b h n m"]]:
    """Returns the weights of all calls of an observed layout; empty for a layout without attention."""
    if isinstance(layout, Observed):
        return layout.weights
    return [weights for part in vars(layout).values() if isinstance(part, Layout) for weights in recorded(part)]


def observed(planned: SetPlan) -> SetPlan:
    """Returns a planned set with the `observed_layout` of each layer, and of cross-attention."""
    cross = None if planned.cross is None else observed_layout(planned.cross)
    return replace(planned, layouts=tuple(map(observed_layout, planned.layouts)), cross=cross)
