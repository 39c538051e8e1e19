"""One new token per row through a core, as fast as Python allows: what cached generation spends its time in.

The arithmetic is `Block.forward`'s, with everything looked up beforehand and nothing planned: when each row is one sample
and the graph is causal, a new token reads all keys. `Decoder.fits` says when that is so; all else takes the general path,
`Transformer.forward` with a cache, to which this one is tested to be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .attention import sdpa
from .cache import Cache
from .graph import Causal, SameSample
from .linear import linear
from .norms import LayerNorm, RmsNorm
from .positions import RelativePosition, Rotary, rotate
from .token_set import plain_tokens
from .transformer import Attention, Block, PreNorm, Transformer

FUSED = 2**17
"""Query, key and value are laid together to one matrix (a copy) up to this many values each: larger ones are bound by
reading the weights, and copying them would cost more than it saves."""


@dataclass(frozen=True)
class Step:
    """What one block needs to read a token: its layers' functions, without the machinery of modules."""

    norm: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    query_norm: Callable[[Tensor], Tensor] | None
    key_norm: Callable[[Tensor], Tensor] | None
    out: Callable[[Tensor], Tensor]
    feed_forward_norm: Callable[[Tensor], Tensor]
    feed_forward: Callable[[Tensor], Tensor]


class Decoder:
    """A core that reads one token per row at a time, and its cache. Make one per text: it copies small matrices."""

    def __init__(self, core: Transformer, cache: Cache, axes: int):
        self.cache = cache
        self.steps = [step_of(block) for block in core.blocks]
        self.norm = lean(core.norm)
        tokens = plain_tokens(1, cache.capacity, axes=axes).to(core.blocks[0].attention.out.weight.device)
        self.angles = core.position.angles(tokens)

    @staticmethod
    def fits(core: Transformer) -> bool:
        """Whether this core is made of parts that are known here, and lets a new token read everything before it."""
        plain = all({*graph.parts()} <= {Causal(), SameSample()} and graph.is_causal() for graph in core.graphs)
        blocks = all(
            type(block) is Block and block.cross_attention is None and type(block.attention) is Attention
            and type(block.add_attention) is PreNorm and type(block.add_feed_forward) is PreNorm
            and block.add_attention.scale is None
            for block in core.blocks
        )  # fmt: skip
        return plain and blocks and type(core.position) in (RelativePosition, Rotary)

    def read(self, x: Float[Tensor, "b d"], place: int) -> Float[Tensor, "b d"]:
        """Read the token of running order `place` of every row, whose keys and values go into the cache."""
        angles = self.angles and tuple(t.narrow(2, place, 1) for t in self.angles)
        rows = len(x)
        for step, cache in zip(self.steps, self.cache.layers):
            query, key, value = step.project(step.norm(x))
            if step.query_norm is not None:
                query, key = step.query_norm(query), step.key_norm(key)
            if angles is not None:
                query, key = rotate(query, angles), rotate(key, angles)
            cache.key.narrow(2, place, 1).copy_(key)
            cache.value.narrow(2, place, 1).copy_(value)
            mixed = sdpa(query, cache.key.narrow(2, 0, place + 1), cache.value.narrow(2, 0, place + 1))
            x = x + step.out(mixed.reshape(rows, -1))
            x = x + step.feed_forward(step.feed_forward_norm(x))
        return self.norm(x)


def step_of(block: Block) -> Step:
    """A block's functions, with query, key and value as one product where the matrices are small."""
    attention = block.attention
    normed = not isinstance(attention.query_norm, nn.Identity)
    return Step(
        norm=lean(block.add_attention.norm),
        project=fused(attention) if attention.query.weight.numel() <= FUSED else separate(attention),
        query_norm=lean(attention.query_norm) if normed else None,
        key_norm=lean(attention.key_norm) if normed else None,
        out=attention.out.forward,
        feed_forward_norm=lean(block.add_feed_forward.norm),
        feed_forward=block.feed_forward.forward,
    )


def lean(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A normalisation as one call."""
    if type(norm) is LayerNorm:
        shape, weight, bias, epsilon = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)
    if type(norm) is RmsNorm:
        shape, weight, epsilon = norm.normalized_shape, norm.weight, norm.eps
        return lambda x: torch.rms_norm(x, shape, weight, epsilon)
    return norm.forward


def fused(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(b, d) to queries, keys and values (b, h, 1, c) by one product with the three matrices laid together."""
    layers, channels = (attention.query, attention.key, attention.value), attention.channels
    weight = torch.cat([layer.weight for layer in layers])
    bias = None if attention.query.bias is None else torch.cat([layer.bias for layer in layers])
    heads, groups = attention.query.out_features // channels, attention.key.out_features // channels

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        every = linear(x, weight, bias).view(len(x), -1, 1, channels)
        return every.narrow(1, 0, heads), every.narrow(1, heads, groups), every.narrow(1, heads + groups, groups)

    return project


def separate(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(b, d) to queries, keys and values (b, h, 1, c) by three products."""
    layers, channels = (attention.query, attention.key, attention.value), attention.channels

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(layer.forward(x).view(len(x), -1, 1, channels) for layer in layers)

    return project
