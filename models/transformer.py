"""The one core: a stack of blocks that reads a set of tokens. GPT, ViT and BERT differ in the graph it is given.

Start at `Transformer.forward`, then `Block.forward`, then `Attention.forward`: that is the whole forward pass.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from .attention.grammar import parse_graph
from .attention.graph import SameSample
from .attention.kernels import Layout, attend
from .attention.plan import plan, plan_cross
from .cache import Cache, LayerCache
from .layers.feed_forward import FeedForward, Gelu
from .layers.linear import Linear, linear
from .layers.norms import LayerNorm, Norm
from .layers.relative import RelativePosition, rotate
from .tokens import Tokens, TokenSet


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Where values are dropped while training: embeddings and what layers add, as in the 2017 paper; attention weights, as in
    GPT-2; whole branches (stochastic depth)."""

    embedding: float = 0.0
    """On the sum of token, type and position embeddings."""
    attention: float = 0.0
    """On the attention weights."""
    residual: float = 0.0
    """On the output of each attention and feed-forward layer, before it is added."""
    depth: float = 0.0
    """A branch is skipped for a whole row with this probability at the last layer, falling linearly to 0 at the first
    (Huang et al. 2016, arXiv:1603.09382)."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"dropout.{name} is {value}; it must be at least 0 and below 1")

    @classmethod
    def from_number(cls, probability: float) -> Dropout:
        """`dropout: 0.1` in YAML: the same at the three slots of GPT-2, no stochastic depth."""
        return cls(embedding=probability, attention=probability, residual=probability)


class Wiring(NamedTuple):
    """What attention needs besides the tokens' vectors: which graph, how positions enter, what is cached."""

    layout: Layout
    angles: tuple[Tensor, Tensor] | None = None
    bias: Float[Tensor, "b h n m"] | None = None
    cache: LayerCache | None = None


class Attention(nn.Module):
    """Multi-head attention with query, key, value and output as four matrices; self- or cross-attention.

    `key_value_heads` below `heads` shares each key and value among several queries (Ainslie et al. 2023,
    arXiv:2305.13245); `query_key_norm` normalises every head's queries and keys (Henry et al. 2020, arXiv:2010.04245);
    `head_width` is how many channels a head has (by default the width is shared among the heads); without `scaled` the
    scores are bare products, as in T5.
    """

    def __init__(
        self, width: int, heads: int, *, key_value_heads: int | None = None, head_width: int | None = None,
        query_key_norm: Callable[[int], Norm] | None = None, scaled: bool = True, bias: bool = True, dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        groups = key_value_heads or heads
        if heads % groups:
            raise ValueError(f"key_value_heads ({groups}) must divide heads ({heads})")
        self.channels, self.dropout = channels_of(width, heads, head_width), dropout
        self.stretch = 1.0 if scaled else math.sqrt(self.channels)
        self.query = Linear(width, heads * self.channels, bias=bias)
        self.key = Linear(width, groups * self.channels, bias=bias)
        self.value = Linear(width, groups * self.channels, bias=bias)
        self.out = Linear(heads * self.channels, width, bias=bias)
        self.query_norm = query_key_norm(self.channels) if query_key_norm else nn.Identity()
        self.key_norm = query_key_norm(self.channels) if query_key_norm else nn.Identity()

    def forward(self, x: Float[Tensor, "b n d"], source: Float[Tensor, "b m d"], wiring: Wiring) -> Tensor:
        """Each token of `x` reads the tokens of `source` (itself, in self-attention) along the wiring's graph."""
        query, key, value = self.project(x, source)
        query, key = self.query_norm(query), self.key_norm(key)
        if self.stretch != 1:
            query = query * self.stretch  # every kernel divides by the same
        if wiring.angles is not None:
            query, key = rotate(query, wiring.angles), rotate(key, wiring.angles)
        query, key = (
            query.to(value.dtype),
            key.to(value.dtype),
        )  # on CUDA autocast leaves norms in float32; kernels take one type
        if wiring.cache is not None:
            key, value = wiring.cache.append(key, value)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, wiring.layout, bias=wiring.bias, dropout=dropout)
        return self.out(rearrange(mixed, "b h n c -> b n (h c)"))

    def project(self, x: Tensor, source: Tensor) -> tuple[Tensor, ...]:
        """Queries of `x`, keys and values of `source`, split into heads: (b, h, n, c)."""
        if x is source and torch.is_grad_enabled():  # one product for three; while generating, copying would cost more
            layers = (self.query, self.key, self.value)
            weight = torch.cat([layer.weight for layer in layers])
            bias = None if self.query.bias is None else torch.cat([layer.bias for layer in layers])
            sizes = [layer.out_features for layer in layers]
            parts = linear(x, weight, bias).split(sizes, dim=-1)
        else:
            parts = self.query(x), self.key(source), self.value(source)
        return tuple(rearrange(part, "b n (h c) -> b h n c", c=self.channels) for part in parts)


def channels_of(width: int, heads: int, head_width: int | None = None) -> int:
    """How many channels each head has. Raises ValueError when the heads do not divide the width among them."""
    if head_width is None and width % heads:
        raise ValueError(f"heads ({heads}) must divide width ({width})")
    return head_width or width // heads


class Residual(nn.Module):
    """Base of the ways to add a layer to the stream, with dropout on the branch and stochastic depth per row.

    `layer_scale` multiplies the branch with a learned vector that starts at this value (arXiv:2103.17239).
    """

    def __init__(
        self, width: int, norm: Callable[[int], Norm], dropout: float, skip: float, *, layer_scale: float | None = None
    ):  # fmt: skip
        super().__init__()
        self.norm, self.dropout, self.skip = norm(width), nn.Dropout(dropout), skip
        self.scale = None if layer_scale is None else nn.Parameter(torch.full((width,), layer_scale))

    def drop(self, branch: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """The branch as it will be added: scaled, values dropped, and whole rows dropped with probability `skip`."""
        branch = self.dropout(branch if self.scale is None else branch * self.scale)
        if not self.training or not self.skip:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.skip
        return branch * (kept / (1 - self.skip)).to(branch.dtype)


class PreNorm(Residual):
    """Normalise what the layer reads: GPT-2 and nearly everything since (Xiong et al. 2020, arXiv:2002.04745)."""

    normalises_output = False

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return x + self.drop(layer(self.norm(x)))


class PostNorm(Residual):
    """Normalise the sum: the 2017 paper and BERT (arXiv:1706.03762)."""

    normalises_output = True

    def forward(self, x: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        return self.norm(x + self.drop(layer(x)))


class Block(nn.Module):
    """Communicate, then compute: attention over the graph, perhaps over a second set, then a feed-forward per token.

    `residual` slots the normalisation (`pre_norm` or `post_norm`), `norm` is its kind, `bias` puts biases on all
    matrices. `query_key_norm`, `key_value_heads`, `head_width` and `scaled`: see `Attention`.
    """

    def __init__(
        self, width: int, heads: int, dropout: Dropout = Dropout(), skip: float = 0.0, crosses: bool = False, *,
        norm: Callable[[int], Norm] = LayerNorm, feed_forward: Callable[[int, bool], FeedForward] = Gelu,
        residual: Callable[..., PreNorm | PostNorm] = PreNorm, key_value_heads: int | None = None,
        query_key_norm: Callable[[int], Norm] | None = None, head_width: int | None = None, scaled: bool = True,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__()

        def add() -> Residual:
            return residual(width, norm, dropout.residual, skip)

        def attention() -> Attention:
            return Attention(width, heads, key_value_heads=key_value_heads, query_key_norm=query_key_norm, bias=bias,
                             head_width=head_width, scaled=scaled, dropout=dropout.attention)  # fmt: skip

        self.attention, self.add_attention = attention(), add()
        self.cross_attention, self.add_cross_attention = (attention(), add()) if crosses else (None, None)
        self.feed_forward, self.add_feed_forward = feed_forward(width, bias), add()

    def forward(self, x: Tensor, wiring: Wiring, source: Tensor | None = None, cross: Wiring | None = None) -> Tensor:
        """One round: `x` (b, n, d) reads itself along `wiring`, then `source` (b, m, d) along `cross`, then computes."""
        x = self.add_attention(x, lambda y: self.attention(y, y, wiring))
        if self.cross_attention is not None:
            x = self.add_cross_attention(x, lambda y: self.cross_attention(y, source, cross))
        return self.add_feed_forward(x, self.feed_forward)


class Transformer(nn.Module):
    """A stack of blocks over one set of tokens, each layer reading along its attention graph.

    `inputs` and `axes` are the names that attention expressions may use (inputs are numbered from 1). `attention` is one
    expression for all layers, or a list repeated over them, e.g. `[causal & window(256), causal]`. `position` puts
    relative positions inside attention. `final_norm` normalises the output of a pre-norm core. A core that `crosses` also
    reads a second set, within the same sample.
    """

    def __init__(
        self, inputs: Sequence[str], axes: Sequence[str] = ("order",), crosses: bool = False, *,
        width: int, depth: int, heads: int, attention: str | list[str] = "causal & same_sample",
        position: Callable[..., RelativePosition] | None = None, block: Callable[..., Block] = Block,
        dropout: Dropout = Dropout(), final_norm: bool = True,
    ):  # fmt: skip
        super().__init__()
        patterns = [attention] if isinstance(attention, str) else attention
        graphs = [parse_graph(pattern, inputs, axes) for pattern in patterns]
        self.graphs = tuple(graphs[layer % len(graphs)] for layer in range(depth))
        self.width, self.dropout, self.axes = width, dropout, len(axes)
        self.embedding_dropout = nn.Dropout(dropout.embedding)
        skips = [dropout.depth * layer / max(depth - 1, 1) for layer in range(depth)]
        blocks = nn.ModuleList(block(width, heads, dropout, skip, crosses) for skip in skips)
        channels = blocks[0].attention.channels
        self.position = position(heads, channels, tuple(axes)) if position else RelativePosition()
        self.blocks = blocks
        last = self.blocks[-1].add_feed_forward
        self.norm = copy.deepcopy(last.norm) if final_norm and not last.normalises_output else nn.Identity()

    def forward(
        self, tokens: TokenSet, layouts: Sequence[Layout], cache: Cache | None = None,
        source: TokenSet | None = None, cross: Layout | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        """Read the set: one layout per layer, as made by `plan`; `source` and `cross` for a second set to read."""
        x = self.embedding_dropout(tokens.x)
        angles = self.position.angles(tokens)
        bias = self.position.bias(tokens, tokens if cache is None else cache.tokens.to(x.device))
        crossing = None if cross is None else Wiring(cross)
        for index, (block, layout) in enumerate(zip(self.blocks, layouts, strict=True)):
            wiring = Wiring(layout, angles, bias, cache and cache.layers[index])
            x = block(x, wiring, None if source is None else source.x, crossing)
        return self.norm(x)

    def plan(self, tokens: Tokens, keys: Tokens | None = None, dtype=torch.float32, device="cpu") -> tuple[Layout, ...]:
        """One layout per layer for these tokens (descriptors on the CPU); layers with the same graph share theirs."""
        dropout = self.dropout.attention if self.training else 0.0
        made = {
            graph: plan(graph, tokens, keys, bias=self.position.has_bias, dropout=dropout, dtype=dtype, device=device)
            for graph in set(self.graphs)
        }
        return tuple(made[graph] for graph in self.graphs)

    def plan_cross(self, tokens: Tokens, source: Tokens, dtype=torch.float32, device="cpu") -> Layout:
        """The layout from this core's tokens to a second set: each token reads its own sample there."""
        return plan_cross(SameSample(), tokens, source, dtype=dtype, device=device)

    def empty_cache(self, rows: int, capacity: int, *, dtype=torch.float32, device="cpu") -> Cache:
        """Room for the keys and values of `capacity` tokens in each of `rows` rows."""

        def layer(attention: Attention) -> LayerCache:
            heads = attention.key.out_features // attention.channels
            return LayerCache(rows, heads, capacity, attention.channels, dtype=dtype, device=device)

        return Cache([layer(block.attention) for block in self.blocks], capacity)
