"""The fast implementation of cached generation: computes one new token per row with little Python overhead.

The arithmetic is that of `Block.forward`, but attributes are looked up in advance and no layout is planned. This is
possible because every row is one sample and the graph is causal, so a new token reads all cached keys. The encoder's
output is projected to keys and values only once. `Decoder.fits` returns whether a core is supported. For all other
cores, generation calls `Transformer.forward` with a cache; tests compare both implementations.
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
"""The maximum number of values of a query matrix for which the matrices of query, key and value are concatenated (a
copy) and multiplied in one product. For larger matrices, reading the weights takes most of the time, and a copy would
cost more than it saves."""


class Step:
    """The layers of one block as plain functions, without the overhead of modules. `source` is the encoder's output for
    cross-attention; `mask`, (s, 1, 1, m), is True at its tokens and False at its padding (None: no padding)."""

    def __init__(self, block: Block, source: TokenSet | None = None, mask: Tensor | None = None):
        self.add, self.attend = adder(block.add_attention), FastAttention(block.attention)
        self.cross: FastCross | None = None
        if block.cross_attention is not None:
            self.add_cross = adder(block.add_cross_attention)
            self.cross = FastCross(block.cross_attention, source, mask)
        self.add_feed_forward, self.feed_forward = adder(block.add_feed_forward), two_products(block.feed_forward)


class Decoder:
    """A core that reads one token per row at a time, together with its cache and with the head that computes the scores
    of the next id. Create one `Decoder` per batch of texts: it copies matrices (for several rows, all matrices of core
    and head), so the weights must not change afterwards.

    `axes` is the number of position axes. `source` is the encoder's output with one sample per row, in the order of the
    rows of the cache; None: no cross-attention.
    """

    def __init__(self, core: Transformer, cache: Cache, axes: int, head: nn.Module, source: TokenSet | None = None):
        self.cache = cache
        is_token = None if source is None else source.sample != PADDING
        mask = None if is_token is None or bool(is_token.all()) else is_token[:, None, None]
        self.steps = [Step(block, source, mask) for block in core.blocks]
        self.norm, self.head = fast_norm(core.norm), fast_head(head)
        tokens = plain_tokens(1, cache.capacity, axes=axes).to(core.blocks[0].attention.out.weight.device)
        self.rotation = core.position.rotation(tokens)
        bias = core.position.bias(tokens, tokens)
        self.bias = None if bias is None else bias.to(cache.layers[0].key.dtype)

    @staticmethod
    def fits(core: Transformer) -> bool:
        """Returns whether this file supports all parts of the core, and a new token reads all earlier tokens of its
        sample in every layer."""
        plain = all({*graph.parts()} <= {Causal(), SameSample()} and graph.is_causal() for graph in core.graphs)
        blocks = bool(len(core.blocks)) and all(
            type(block) is Block and type(block.attention) is Attention and block.own_layers is None
            and type(block.add_attention) in (PreNorm, PostNorm) and block.add_attention.scale is None
            and not block.feed_forward.reads_context
            for block in core.blocks
        )  # fmt: skip
        return plain and blocks and type(core.position) in (RelativePosition, Rotary, RelativeBias)

    def keep(self, samples: Int[Tensor, "s"]) -> None:
        """Keeps only the samples of the encoder's output at the rows `samples`. The texts of all others are
        complete."""
        for step in self.steps:
            if step.cross is not None:
                step.cross.keep(samples)

    def scores(self, x: Float[Tensor, "b d"], column: int, beams: int = 1) -> Float[Tensor, "b v"]:
        """Returns the scores of the next id of every row, and writes the keys and values of the new tokens to the
        cache. `x` has the embedded new token of every row; `column` is the running order of these tokens. `beams`
        neighbouring rows share a sample of the encoder's output."""
        rotation = self.rotation and tuple(t.narrow(2, column, 1) for t in self.rotation)
        bias = None if self.bias is None else self.bias[:, :, column : column + 1, : column + 1]
        for step, cache in zip(self.steps, self.cache.layers):
            x = step.add(x, step.attend, cache, column, rotation, bias)
            if step.cross is not None:
                x = step.add_cross(x, step.cross, beams)
            x = step.add_feed_forward(x, step.feed_forward)
        return self.head(self.norm(x))


class FastAttention:
    """The self-attention of one layer for one new token per row. The keys and values of the new tokens are written to
    the cache at `column`."""

    def __init__(self, attention: Attention):
        self.project = fused(attention) if attention.query.weight.numel() <= FUSED else separate(attention)
        self.normed = not isinstance(attention.query_norm, nn.Identity)
        self.query_norm, self.key_norm = fast_norm(attention.query_norm), fast_norm(attention.key_norm)
        self.scale, self.out = scale_of(attention), product(attention.out)

    def __call__(
        self, x: Float[Tensor, "b d"], cache: LayerCache, column: int, rotation: tuple[Tensor, ...] | None,
        bias: Tensor | None,
    ) -> Float[Tensor, "b d"]:  # fmt: skip
        query, key, value = self.project(x)
        if self.normed:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        query = query.to(cache.key.dtype)  # norms may return float32, kernels need one dtype
        cache.key.narrow(2, column, 1).copy_(key)
        cache.value.narrow(2, column, 1).copy_(value)
        cache.length = column + 1
        keys, values = cache.key.narrow(2, 0, column + 1), cache.value.narrow(2, 0, column + 1)
        return self.out(sdpa(query, keys, values, bias, scale=self.scale).reshape(len(x), -1))


class FastCross:
    """The cross-attention of one layer. The keys and values of the encoder's output, (s, g, m, c), are computed once.
    All beams of a sample are queries to the keys of this sample."""

    def __init__(self, attention: Attention, source: TokenSet, mask: Bool[Tensor, "s 1 1 m"] | None):
        self.channels, self.scale = attention.channels, scale_of(attention)
        self.query, self.out = product(attention.query), product(attention.out)
        self.query_norm = fast_norm(attention.query_norm)
        _, key, value = attention.project(source.x[:, :0], source.x)
        self.key, self.value, self.mask = attention.key_norm(key).to(value.dtype), value, mask

    def keep(self, samples: Tensor) -> None:
        """Keeps only the samples of the encoder's output at the rows `samples`."""
        self.key, self.value = self.key[samples], self.value[samples]
        self.mask = None if self.mask is None else self.mask[samples]

    def __call__(self, x: Float[Tensor, "b d"], beams: int) -> Float[Tensor, "b d"]:
        query = self.query(x).view(len(self.key), beams, -1, self.channels).transpose(1, 2)
        query = self.query_norm(query).to(self.key.dtype)
        mixed = sdpa(query, self.key, self.value, self.mask, scale=self.scale)
        return self.out(mixed.transpose(1, 2).reshape(len(x), -1))


def scale_of(attention: Attention) -> float | None:
    """Returns the factor of the attention scores. None: 1 / sqrt(channels), the default of the kernels."""
    return None if attention.scaled else 1.0


def adder(residual: Residual) -> Callable[..., Tensor]:
    """Returns a function of (x, layer, *arguments) that adds the output of a layer to the residual stream x, without
    dropout and without a factor. `layer` is called with a tensor and with `arguments`."""
    norm = fast_norm(residual.norm)
    if residual.normalises_output:
        return lambda x, layer, *arguments: norm(x + layer(x, *arguments))
    return lambda x, layer, *arguments: x + layer(norm(x), *arguments)


def fast_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns the normalisation `norm` as a plain function."""
    if type(norm) is LayerNorm:
        shape, weight, bias, epsilon = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, epsilon)
    if type(norm) is RmsNorm:
        return rms(norm)
    return norm.forward


def rms(norm: RmsNorm) -> Callable[[Tensor], Tensor]:
    """Returns root mean square normalisation as a plain function. On a CPU, PyTorch's version takes twice the number of
    operations."""
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
    """Returns a head as a function: a plain function for `Unembedding` and `Tied`, else its `forward`."""
    if type(head) is Unembedding:
        return product(head.linear)
    if type(head) is Tied:
        multiply, scale = prepacked(head.table), head.scale
        return multiply if scale == 1 else lambda x: multiply(x * scale)
    return head.forward


def product(layer: Linear) -> Callable[[Tensor], Tensor]:
    """Returns the linear layer as a plain function of rows (see `prepacked`)."""
    return prepacked(layer.weight, layer.bias)


def two_products(layer: FeedForward) -> Callable[[Tensor], Tensor]:
    """Returns a feed-forward layer as a function: a plain function for layers with two matrices and an activation
    between them (`TwoMatrices`), else its `forward`."""
    if type(layer).forward is not TwoMatrices.forward:
        return layer.forward
    up, activation, down = product(layer.up), layer.activation, product(layer.down)
    return lambda x: down(activation(up(x)))


def fused(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Returns a function that maps (b, d) to (queries, keys, values) of shapes (b, h, 1, c), (b, g, 1, c) and (b, g, 1,
    c), computed in one product."""
    channels = attention.channels
    heads, groups = attention.query.out_features // channels, attention.key.out_features // channels
    multiply = prepacked(*laid_together(attention.query, attention.key, attention.value))

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joined = multiply(x).view(len(x), -1, 1, channels)
        return joined.narrow(1, 0, heads), joined.narrow(1, heads, groups), joined.narrow(1, heads + groups, groups)

    return project


def separate(attention: Attention) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Returns a function that maps (b, d) to (queries, keys, values) of shapes (b, h, 1, c), (b, g, 1, c) and (b, g, 1,
    c), computed in three products."""
    products = [product(layer) for layer in (attention.query, attention.key, attention.value)]
    channels = attention.channels

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(multiply(x).view(len(x), -1, 1, channels) for multiply in products)

    return project
