"""The fast path of cached generation: one new token per row through a core, with as little Python as possible.

The arithmetic is `Block.forward`'s, with everything looked up beforehand and nothing planned: where each row is one
sample and the graph is causal, a new token reads all cached keys, and the encoder's output is projected to keys and
values only once. `Decoder.fits` says which cores can do this; all else takes the general path, `Transformer.forward`
with a cache, to which this one is tested to be equal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..attention.graph import Causal, SameSample
from ..attention.kernels import sdpa
from ..cache import Cache, LayerCache
from ..heads import Tied, Unembedding
from ..layers.feed_forward import FeedForward, TwoMatrices
from ..layers.linear import Linear, laid_together, prepacked
from ..layers.norms import LayerNorm, PostNorm, PreNorm, Residual, RmsNorm
from ..layers.relative import RelativeBias, RelativePosition, Rotary, rotate
from ..tokens import PADDING, TokenSet, plain_tokens
from ..transformer import Attention, Block, Transformer

FUSED = 2**17
"""Query, key and value matrices are concatenated (a copy) for one product where the query's has at most this many
values: with larger ones reading the weights takes the time, and copying them would cost more than it saves."""


class Step:
    """One block's layers as plain functions, without the overhead of modules, with query, key and value as one product
    where the matrices are small."""

    def __init__(self, block: Block, source: TokenSet | None = None, mask: Tensor | None = None):
        self.add, self.attend = adder(block.add_attention), FastAttention(block.attention)
        self.cross: FastCross | None = None
        if block.cross_attention is not None:
            self.add_cross = adder(block.add_cross_attention)
            self.cross = FastCross(block.cross_attention, source, mask)
        self.add_feed_forward, self.feed_forward = adder(block.add_feed_forward), two_products(block.feed_forward)


class Decoder:
    """A core that reads one token per row at a time, its cache, and the head that scores the next id. Make one per
    batch of texts: it copies matrices (for several rows, as many bytes as the core and the head have).

    `axes` is the number of position axes. `source` is the encoder's output, one sample a row, in the order of the rows
    of the cache.
    """

    def __init__(self, core: Transformer, cache: Cache, axes: int, head: nn.Module, source: TokenSet | None = None):
        self.cache = cache
        there = None if source is None else source.sample != PADDING
        mask = None if there is None or bool(there.all()) else there[:, None, None]
        self.steps = [Step(block, source, mask) for block in core.blocks]
        self.norm, self.head = fast(core.norm), fast_head(head)
        tokens = plain_tokens(1, cache.capacity, axes=axes).to(core.blocks[0].attention.out.weight.device)
        self.rotation = core.position.rotation(tokens)
        bias = core.position.bias(tokens, tokens)
        self.bias = None if bias is None else bias.to(cache.layers[0].key.dtype)

    @staticmethod
    def fits(core: Transformer) -> bool:
        """Whether all parts of this core are known here, and a new token reads all earlier ones in every layer."""
        plain = all({*graph.parts()} <= {Causal(), SameSample()} and graph.is_causal() for graph in core.graphs)
        blocks = all(
            type(block) is Block and type(block.attention) is Attention and block.own_layers is None
            and type(block.add_attention) in (PreNorm, PostNorm) and block.add_attention.scale is None
            for block in core.blocks
        )  # fmt: skip
        return plain and blocks and type(core.position) in (RelativePosition, Rotary, RelativeBias)

    def keep(self, sentences: Int[Tensor, "s"]) -> None:
        """Keep these samples (rows) of the source; the others are done."""
        for step in self.steps:
            if step.cross is not None:
                step.cross.keep(sentences)

    def scores(self, x: Float[Tensor, "b d"], place: int, beams: int = 1) -> Float[Tensor, "b v"]:
        """The scores of the id after the token `x` of every row, at running order `place`; its keys and values go into
        the cache. Each sample of the source serves `beams` neighbouring rows."""
        rotation = self.rotation and tuple(t.narrow(2, place, 1) for t in self.rotation)
        bias = None if self.bias is None else self.bias[:, :, place : place + 1, : place + 1]
        for step, cache in zip(self.steps, self.cache.layers):
            x = step.add(x, step.attend, cache, place, rotation, bias)
            if step.cross is not None:
                x = step.add_cross(x, step.cross, beams)
            x = step.add_feed_forward(x, step.feed_forward)
        return self.head(self.norm(x))


class FastAttention:
    """One layer's self-attention for one new token per row, whose key and value go into the cache at column `place`."""

    def __init__(self, attention: Attention):
        self.project = fused(attention) if attention.query.weight.numel() <= FUSED else separate(attention)
        self.normed = not isinstance(attention.query_norm, nn.Identity)
        self.query_norm, self.key_norm = fast(attention.query_norm), fast(attention.key_norm)
        self.scale, self.out = scale_of(attention), product(attention.out)

    def __call__(
        self, x: Float[Tensor, "b d"], cache: LayerCache, place: int, rotation: tuple[Tensor, ...] | None,
        bias: Tensor | None,
    ) -> Float[Tensor, "b d"]:  # fmt: skip
        query, key, value = self.project(x)
        if self.normed:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query = query.to(cache.key.dtype)  # norms leave float32 behind, kernels take one type
        cache.key.narrow(2, place, 1).copy_(key)
        cache.value.narrow(2, place, 1).copy_(value)
        cache.length = place + 1
        keys, values = cache.key.narrow(2, 0, place + 1), cache.value.narrow(2, 0, place + 1)
        return self.out(sdpa(query, keys, values, bias, scale=self.scale).reshape(len(x), -1))


class FastCross:
    """One layer's cross-attention with the keys and values of the source, (s, g, m, c), computed once. The beams of a
    sample read them together, as the queries of one attention."""

    def __init__(self, attention: Attention, source: TokenSet, mask: Bool[Tensor, "s 1 1 m"] | None):
        self.channels, self.scale = attention.channels, scale_of(attention)
        self.query, self.out = product(attention.query), product(attention.out)
        self.query_norm = fast(attention.query_norm)
        _, key, value = attention.project(source.x[:, :0], source.x)
        self.key, self.value, self.mask = attention.key_norm(key).to(value.dtype), value, mask

    def keep(self, sentences: Tensor) -> None:
        """Keep these samples (rows) of the source."""
        self.key, self.value = self.key[sentences], self.value[sentences]
        self.mask = None if self.mask is None else self.mask[sentences]

    def __call__(self, x: Float[Tensor, "b d"], beams: int) -> Float[Tensor, "b d"]:
        query = self.query(x).view(len(self.key), beams, -1, self.channels).transpose(1, 2)
        query = self.query_norm(query).to(self.key.dtype)
        mixed = sdpa(query, self.key, self.value, self.mask, scale=self.scale)
        return self.out(mixed.transpose(1, 2).reshape(len(x), -1))


def scale_of(attention: Attention) -> float | None:
    """The factor of the scores; None: the usual 1 / sqrt(channels)."""
    return None if attention.scaled else 1.0


def adder(residual: Residual) -> Callable[..., Tensor]:
    """The function (x, layer, *arguments) that adds a layer to the residual stream, outside training."""
    norm = fast(residual.norm)
    if residual.normalises_output:
        return lambda x, layer, *reads: norm(x + layer(x, *reads))
    return lambda x, layer, *reads: x + layer(norm(x), *reads)


def fast(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """A normalisation as one function."""
    if type(norm) is LayerNorm:
        shape, weight, bias, epsilon = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)
    if type(norm) is RmsNorm:
        return rms(norm)
    return norm.forward


def rms(norm: RmsNorm) -> Callable[[Tensor], Tensor]:
    """Root mean square normalisation. On a CPU torch's own takes twice as many operations."""
    weight, epsilon = norm.weight, norm.eps
    small = torch.tensor(epsilon)

    def normalise(x: Tensor) -> Tensor:
        if not x.is_cpu or x.dtype != torch.float32:
            return norm.forward(x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        x = x * torch.addcmul(small, length, length, value=1 / x.shape[-1]).rsqrt_()
        return x if weight is None else x * weight

    return normalise


def fast_head(head: nn.Module) -> Callable[[Tensor], Tensor]:
    """A head as one function, without modules if it is `Unembedding` or `Tied`."""
    if type(head) is Unembedding:
        return product(head.linear)
    if type(head) is Tied:
        multiply, scale = prepacked(head.table), head.scale
        return multiply if scale == 1 else lambda x: multiply(x * scale)
    return head.forward


def product(layer: Linear) -> Callable[[Tensor], Tensor]:
    """A linear map as one function."""
    return prepacked(layer.weight, layer.bias)


def two_products(layer: FeedForward) -> Callable[[Tensor], Tensor]:
    """A feed-forward layer as one function, without modules if it is one of two matrices."""
    if not isinstance(layer, TwoMatrices) or type(layer).forward is not TwoMatrices.forward:
        return layer.forward
    up, activation, down = product(layer.up), layer.activation, product(layer.down)
    return lambda x: down(activation(up(x)))


def fused(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(b, d) to queries (b, h, 1, c), keys and values (b, g, 1, c) by one product with all three matrices."""
    channels = attention.channels
    heads, groups = attention.query.out_features // channels, attention.key.out_features // channels
    multiply = prepacked(*laid_together(attention.query, attention.key, attention.value))

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        every = multiply(x).view(len(x), -1, 1, channels)
        return every.narrow(1, 0, heads), every.narrow(1, heads, groups), every.narrow(1, heads + groups, groups)

    return project


def separate(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(b, d) to queries (b, h, 1, c), keys and values (b, g, 1, c) by three products."""
    products = [product(layer) for layer in (attention.query, attention.key, attention.value)]
    channels = attention.channels

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(multiply(x).view(len(x), -1, 1, channels) for multiply in products)

    return project
