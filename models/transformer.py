"""The core: a stack of blocks that processes a set of tokens. GPT, ViT and BERT differ in their attention graph.

Read `Transformer.forward`, then `Block.forward`, then `Attention.forward`: this is the complete forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .attention.grammar import parse_graph
from .attention.graph import Graph, SameSample
from .attention.kernels import Layout, Plain, attend
from .attention.plan import plan, plan_cross, plan_rows
from .cache import Cache, LayerCache, LayerState
from .contract import Problems, check_block, checked_states, is_user_defined
from .initialization import copied
from .layers.feed_forward import EachInput, FeedForward, Gelu, OwnLayers, passed, slots_of
from .layers.linear import Linear, laid_together, linear
from .layers.norms import LayerNorm, Norm, PostNorm, PreNorm, Residual
from .layers.relative import RelativePosition, rotate
from .tokens import Tokens, plain_tokens, with_padding


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Dropout probabilities during training, at least 0 and below 1. A single number `dropout: 0.1` sets `embedding`,
    `attention` and `residual`. Raises ValueError for a value outside this range."""

    embedding: float = 0.0
    """Dropout of the sum of token, type and position embeddings."""
    attention: float = 0.0
    """Dropout of the attention weights (after the softmax)."""
    residual: float = 0.0
    """Dropout of the output of each attention and feed-forward layer, before this output is added to the residual
    stream."""
    depth: float = 0.0
    """Stochastic depth (arXiv:1603.09382): the probability that a row of the batch skips a branch (attention or
    feed-forward) of the last layer. The probability increases linearly from 0 in the first layer to this value."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"dropout.{name} is {value}; it must be at least 0 and below 1")

    @classmethod
    def from_number(cls, probability: float) -> Dropout:
        """Returns the options for a single number, `dropout: 0.1` in a YAML: this probability for embeddings, attention
        weights and outputs of layers (GPT-2 does this), without stochastic depth."""
        return cls(embedding=probability, attention=probability, residual=probability)


class AttentionContext(NamedTuple):
    """What a block knows about its tokens: the layout of its graph, relative positions as `rotation` and `bias` (see
    `RelativePosition`), what it stores about earlier tokens (`empty_state`), the slots of each group of inputs with
    separate weights (see `slots_of`), and the descriptors of the tokens; for cross-attention, those of the second set,
    or None if row b of it belongs to row b.

    In training, a layer may append a loss term to `losses`: a scalar, the sum over the tokens of the batch without
    padding. Training divides it by the number of tokens in the global batch."""

    layout: Layout
    rotation: tuple[Tensor, Tensor] | None = None
    bias: Float[Tensor, "b h n m"] | None = None
    cache: LayerState | None = None
    groups: tuple[Tensor, ...] | None = None
    tokens: Tokens | None = None
    losses: list[Tensor] | None = None


class Attention(nn.Module):
    """Multi-head self- or cross-attention, with one matrix each for queries, keys, values and outputs.

    `key_value_heads` is the number of key and value heads; null: `heads`. If it is smaller than `heads`, several query
    heads share one key and value head (Ainslie et al. 2023, arXiv:2305.13245). `query_key_norm` normalises the queries
    and keys of every head (Henry et al. 2020, arXiv:2010.04245); null: no normalisation. `head_width` is the number of
    channels of a head; null: width / heads. `scaled`: whether the scores are divided by the square root of the number
    of channels of a head (in T5 they are not). Raises ValueError if `key_value_heads` does not divide `heads`, or if
    `heads` does not divide `width` and `head_width` is null.
    """

    def __init__(
        self, width: int, heads: int, *, key_value_heads: int | None = None, head_width: int | None = None,
        query_key_norm: Callable[[int], Norm] | None = None, scaled: bool = True, bias: bool = True,
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        shared = key_value_heads or heads
        if heads % shared:
            raise ValueError(f"key_value_heads ({shared}) must divide heads ({heads})")
        if head_width is None and width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        self.channels, self.dropout, self.scaled = head_width or width // heads, dropout, scaled
        self.key_value_heads = shared
        self.query = Linear(width, heads * self.channels, bias=bias)
        self.key = Linear(width, shared * self.channels, bias=bias)
        self.value = Linear(width, shared * self.channels, bias=bias)
        self.out = Linear(heads * self.channels, width, bias=bias)
        self.query_norm = query_key_norm(self.channels) if query_key_norm else nn.Identity()
        self.key_norm = query_key_norm(self.channels) if query_key_norm else nn.Identity()

    def forward(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, source: Float[Tensor, "b m d"] | None = None
    ) -> Tensor:
        """Returns the output of attention for each token of `x`, (b, n, d). The tokens of `x` attend to tokens of
        `source` (None: to tokens of `x` and of the cache) along the edges of the graph."""
        query, key, value = self.project(x, x if source is None else source, context.groups)
        query, key = self.query_norm(query), self.key_norm(key)
        if not self.scaled:
            query = query * math.sqrt(self.channels)  # cancels the division in the kernels
        if context.rotation is not None:
            query, key = rotate(query, context.rotation), rotate(key, context.rotation)
        query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast on CUDA norms return float32
        if context.cache is not None:
            key, value = context.cache.append(key, value)
        dropout = self.dropout if self.training else 0.0
        mixed = attend(query, key, value, context.layout, bias=context.bias, dropout=dropout)
        return passed(self.out, rearrange(mixed, "b h n c -> b n (h c)"), context.groups)

    def project(self, x: Tensor, source: Tensor, groups: tuple[Tensor, ...] | None = None) -> tuple[Tensor, ...]:
        """Returns (queries, keys, values): the queries of `x`, (b, h, n, c), and the keys and values of `source`, (b,
        g, m, c) each, with g key and value heads."""
        layers = (self.query, self.key, self.value)
        if x is source and torch.is_grad_enabled() and all(type(layer) is Linear for layer in layers):
            # one product instead of three; without gradients, copying the weights would cost more
            parts = linear(x, *laid_together(*layers)).split([layer.out_features for layer in layers], dim=-1)
        else:
            parts = (passed(layer, tokens, groups) for layer, tokens in zip(layers, (x, source, source)))
        return tuple(rearrange(part, "b n (h c) -> b h n c", c=self.channels) for part in parts)


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """The options of a block. The fields are the keys of `model.block` in a YAML."""

    norm: Callable[[int], Norm] = LayerNorm
    """The normalisation of the vectors before (or after) each branch."""
    feed_forward: Callable[[int, bool], FeedForward] = Gelu
    """The layer that processes each token separately, after attention."""
    residual: Callable[..., PreNorm | PostNorm] = PreNorm
    """The position of the normalisation: `pre_norm` or `post_norm`."""
    key_value_heads: int | None = None
    """The number of key and value heads, which divides `heads`; null: `heads` (Ainslie et al. 2023,
    arXiv:2305.13245)."""
    query_key_norm: Callable[[int], Norm] | None = None
    """The normalisation of the queries and keys of every head; null: none (Henry et al. 2020, arXiv:2010.04245)."""
    head_width: int | None = None
    """The number of channels of a head; null: width / heads."""
    scaled: bool = True
    """Whether the scores are divided by the square root of the number of channels of a head (in T5 they are not)."""
    bias: bool = True
    """Whether the matrices of attention and of the feed-forward layer have biases."""
    own_layers: OwnLayers | None = None
    """Separate weights of some layers for each group of inputs; null: all inputs share all weights."""

    def attention(self, width: int, heads: int, dropout: float) -> Attention:
        """Returns an attention layer with these options."""
        return Attention(
            width, heads, key_value_heads=self.key_value_heads, head_width=self.head_width,
            query_key_norm=self.query_key_norm, scaled=self.scaled, bias=self.bias, dropout=dropout,
        )  # fmt: skip


Role = Literal["encoder", "decoder", "decoder-only"]
"""The place of a core: an encoder, the decoder next to it, or the only core of a model."""


class BaseBlock(nn.Module):
    """Base class of the blocks (layers) of a core. A block computes new vectors of all tokens with `forward`, from the
    tokens that its graph lets them read.

    The constructor is called with the width, the number of heads, the dropout, the probability of stochastic depth,
    whether the block reads a second set (`crosses`), and by name with the attention graph of the layer (`graph`) and,
    if the class has a dataclass `Options`, `options`. The fields of `Options` are the keys of `model.block` in a YAML.
    """

    channels: int | None = None
    """The number of channels of a head of attention, for `model.position`; None: the block has no relative
    positions."""
    attends: ClassVar[bool] = False
    """Whether tokens read other tokens only by attention along `context.layout`. If not, the code of the block is
    tested for leaks before training (see `models/probe.py`)."""
    crosses: bool = False
    """Whether the block needs a second set, the output of an encoder."""
    own_layers: OwnLayers | None = None
    """Separate weights of some layers for each group of inputs; None: all inputs share all weights."""

    def forward(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, source: Float[Tensor, "b m d"] | None = None,
        source_context: AttentionContext | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        """Returns the vectors of the tokens after this layer. `source`: the vectors of the second set, with its own
        context; None: there is none."""
        raise NotImplementedError

    def problems(self, graph: Graph, role: Role) -> Problems:
        """Yields (path, message) for each reason why the block does not compute this graph in a core with this role. A
        path begins with a key of the core, such as `("attention",)` or `("block", "words")`. The default yields
        nothing. It is called before training."""
        yield from ()

    def plan(self, graph: Graph, tokens: Tokens, keys: Tokens | None, **options) -> Layout:
        """Returns what `forward` needs to know about tokens to compute the graph, as a layout that can move to a
        device; it is called once per batch, with descriptors on the CPU. `options` are the keyword arguments of
        `attention.plan.plan`, the default, which returns the layout of attention."""
        return plan(graph, tokens, keys, **options)

    def plan_rows(self, graph: Graph, tokens: Tokens, **options) -> Layout:
        """Like `plan`, for rows that are one sample each, with descriptors on the device. `options` are the keyword
        arguments of `attention.plan.plan_rows`."""
        return plan_rows(graph, tokens, **options)

    def plan_cross(self, tokens: Tokens, source: Tokens, **options) -> Layout:
        """Like `plan`, for reading a second set: each token reads all tokens of its sample. `options` are the keyword
        arguments of `attention.plan.plan_cross`."""
        return plan_cross(SameSample(), tokens, source, **options)

    def empty_state(self, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str) -> LayerState:
        """Returns the state of `rows` rows before the first token, in which the block stores what it needs to know
        about earlier tokens, of which there will be at most `capacity`. Raises NotImplementedError by default: the
        block generates only without a cache."""
        raise NotImplementedError(f"{type(self).__name__} has no empty_state, so it generates only without a cache")

    def output_norm(self) -> nn.Module | None:
        """Returns a normalisation whose copy normalises the output of the last block; None (the default): none."""
        return None


class Block(BaseBlock):
    """One layer of a core: attention along the graph, then cross-attention if `crosses`, then a feed-forward layer.

    `skip` is the probability of stochastic depth: during training, each row of the batch skips each branch (attention,
    cross-attention, feed-forward) with this probability. A subclass may set `Options` to a subclass of `BlockOptions`,
    a frozen dataclass. The fields of `Options` are the keys of `model.block` in a YAML.
    """

    Options = BlockOptions
    attends = True

    def __init__(
        self, width: int, heads: int, dropout: Dropout = Dropout(), skip: float = 0.0, crosses: bool = False, *,
        graph: Graph | None = None, options: BlockOptions = BlockOptions(),
    ):  # fmt: skip
        super().__init__()

        def add() -> Residual:
            return options.residual(width, options.norm, dropout.residual, skip)

        self.attention, self.add_attention = options.attention(width, heads, dropout.attention), add()
        self.channels, self.crosses = self.attention.channels, crosses
        self.cross_attention = options.attention(width, heads, dropout.attention) if crosses else None
        self.add_cross_attention = add() if crosses else None
        self.feed_forward, self.add_feed_forward = options.feed_forward(width, options.bias), add()
        self.own_layers = options.own_layers
        for name in () if self.own_layers is None else self.own_layers.layers:
            holder = self if name == "feed_forward" else self.attention
            setattr(holder, name, EachInput(getattr(holder, name), len(self.own_layers.groups)))

    def forward(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, source: Float[Tensor, "b m d"] | None = None,
        source_context: AttentionContext | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        """Returns the vectors of the tokens after this layer. Every token attends to the tokens that it reads in the
        graph; then the feed-forward layer processes every token separately."""
        x = self.add_attention(x, self.attention, context)
        if self.cross_attention is not None:
            x = self.add_cross_attention(x, self.cross_attention, source_context, source)
        return self.add_feed_forward(x, self.feed, context)

    def feed(self, x: Float[Tensor, "b n d"], context: AttentionContext) -> Float[Tensor, "b n d"]:
        """Returns the output of the feed-forward layer for all tokens."""
        if self.feed_forward.reads_context:
            return self.feed_forward(x, context)
        return passed(self.feed_forward, x, context.groups)

    def empty_state(self, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str) -> LayerCache:
        """Returns an empty cache of keys and values."""
        heads = self.attention.key_value_heads
        return LayerCache(rows, heads, capacity, self.attention.channels, dtype=dtype, device=device)

    def output_norm(self) -> nn.Module | None:
        """Returns the normalisation of the last branch, unless its output is already normalised (`post_norm`)."""
        return None if self.add_feed_forward.normalises_output else self.add_feed_forward.norm


class Transformer(nn.Module):
    """A stack of blocks that processes one set of tokens. Each layer attends along its own attention graph.

        x = torch.randn(2, 10, 64)
        y = Transformer(width=64, depth=2, heads=2, attention="causal")(x)      (2, 10, 64)

    `width` is the number of channels of a token's vector, `depth` the number of blocks, and `heads` the number of
    attention heads in each block. `block` selects the blocks and their options. `dropout` contains the probabilities
    with which values are dropped in training: one number, or one for each place (`Dropout`).
    `attention` is one graph for all layers, or a list of graphs that is repeated over the layers, such as `[causal &
    window(256), causal]`. A graph is an expression or, in Python, a `Graph`; without a YAML, an expression cannot
    contain names of inputs, and no axis except `order`. `position` adds relative positions to attention; null: no
    positions. `final_norm` normalises the output of the last block, but not with `post_norm`, whose output is already
    normalised. With a `depth` of 0, the vectors are returned unchanged. If the blocks have cross-attention
    (`block=partial(Block, crosses=True)`), the tokens also attend to a
    second set, within samples.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int,
        attention: str | Graph | list[str | Graph] = "causal & same_sample",
        position: Callable[..., RelativePosition] | None = None, block: Callable[..., BaseBlock] = Block,
        dropout: Dropout = Dropout(), final_norm: bool = True,
    ):  # fmt: skip
        super().__init__()
        if not callable(block):
            reason = "such as functools.partial(Block, options=BlockOptions(norm=RmsNorm))"
            raise TypeError(
                f"block must be a class of blocks, or a function that returns a block, {reason}, not {block!r}"
            )
        patterns = attention if isinstance(attention, list) else [attention]
        graphs = [parse_graph(pattern) if isinstance(pattern, str) else pattern for pattern in patterns]
        self.graphs = tuple(graphs[layer % len(graphs)] for layer in range(depth))
        self.width, self.dropout = width, dropout
        self.embedding_dropout = nn.Dropout(dropout.embedding)
        skips = [dropout.depth * layer / max(depth - 1, 1) for layer in range(depth)]
        layers = zip(skips, self.graphs, strict=True)
        blocks = nn.ModuleList(block(width, heads, dropout, skip, graph=graph) for skip, graph in layers)
        self.position = (position or RelativePosition)(heads, (blocks[0].channels if depth else None) or width // heads)
        self.blocks, self.input_groups = blocks, None
        self.losses: list[Tensor] = []
        """The loss terms of the layers in the last forward pass of training, until `take_loss`."""
        self.checks_blocks = any(map(is_user_defined, blocks.modules()))
        self.axes = len(self.position.axes)
        norm = blocks[-1].output_norm() if final_norm and depth else None
        self.norm = nn.Identity() if norm is None else copied(norm)

    def forward(
        self, x: Float[Tensor, "b n d"], tokens: Tokens | None = None, layouts: Sequence[Layout] | None = None, *,
        cache: Cache | None = None, source: Float[Tensor, "b m d"] | None = None, source_layout: Layout | None = None,
        source_tokens: Tokens | None = None, groups: tuple[Tensor, ...] | None = None,
        padding_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        """Returns the vectors of the tokens after all blocks.

        tokens         the descriptors of the tokens. None: every row is one sample of one input
        layouts        the attention layout of each layer for these tokens (`plan`). None: computed in this call
        cache          keys and values of earlier tokens. If `layouts` are passed, call `cache.extend(tokens)` first
        source         the vectors of a second set, for cross-attention. None: no cross-attention
        source_layout  the layout of cross-attention (`plan_cross`). None, if `layouts` is None too: row b attends to
                       all of row b of `source`
        source_tokens  the descriptors of the second set, if the blocks need them. None: row b belongs to row b
        groups         the slots of each group of inputs with separate weights (`group`). None: computed in this call
        padding_mask   without `tokens` and `cache`: True for tokens that are padding, which no other token reads
        """
        self.check_arguments(x, source, padding_mask, tokens is None and cache is None)
        if tokens is None and cache is None and layouts is None:
            tokens, layouts, source_layout = self.plan_plain(x, source, source_layout, padding_mask)
        elif tokens is None or layouts is None:
            tokens, layouts, source_layout = self.plan_missing(x, tokens, layouts, cache, source, source_layout)
        groups = self.group(tokens) if groups is None else groups
        x, self.losses = self.embedding_dropout(x), []
        rotation = self.position.rotation(tokens)
        bias = self.position.bias(tokens, tokens if cache is None else cache.tokens.to(x.device))
        source_context = None if source_layout is None else AttentionContext(source_layout, tokens=source_tokens)
        for index, (block, layout) in enumerate(zip(self.blocks, layouts, strict=True)):
            state = None if cache is None else cache.layers[index]
            losses = self.losses if self.training else None
            context = AttentionContext(layout, rotation, bias, state, groups, tokens, losses)
            shape, x = tuple(x.shape), block(x, context, source, source_context)
            if self.checks_blocks:
                check_block(block, x, shape, self.losses)
        return self.norm(x)

    def take_loss(self) -> Tensor:
        """Returns the sum of the loss terms in `losses`, a scalar, and empties this list."""
        losses, self.losses = self.losses, []
        return sum(losses)

    def plan_plain(self, x, source, source_layout, padding_mask) -> tuple[Tokens, Sequence[Layout], Layout | None]:
        """Returns (tokens, layouts, layout of the cross-attention) for rows that are one sample each. The arguments are
        those of `forward`."""
        tokens = plain_tokens(*x.shape[:2], axes=self.axes, device=x.device)
        tokens = tokens if padding_mask is None else with_padding(tokens, padding_mask)
        layouts = self.plan_rows(tokens, padding_mask is not None, x.dtype)
        return tokens, layouts, Plain(causal=False) if source is not None and source_layout is None else source_layout

    def plan_missing(
        self, x, tokens, layouts, cache, source, source_layout
    ) -> tuple[Tokens, Sequence[Layout], Layout | None]:  # fmt: skip
        """Returns (tokens, layouts, layout of the cross-attention). The arguments are those of `forward`; those that
        are None are created: plain tokens that follow the tokens of the cache, and the layouts of all layers."""
        plain = {"start": 0 if cache is None else cache.length, "axes": self.axes}
        on_cpu = plain_tokens(*x.shape[:2], **plain) if tokens is None else tokens.to("cpu")
        tokens = plain_tokens(*x.shape[:2], **plain, device=x.device) if tokens is None else tokens
        if layouts is None:
            layouts = self.plan(on_cpu, None if cache is None else cache.extend(on_cpu), x.dtype, x.device)
            if source is not None and source_layout is None:
                source_layout = self.plan_cross(on_cpu, plain_tokens(*source.shape[:2]), x.dtype, x.device)
            tokens = tokens.to(x.device)
        return tokens, layouts, source_layout

    def plan(self, tokens: Tokens, keys: Tokens | None = None, dtype=torch.float32, device="cpu") -> tuple[Layout, ...]:
        """Returns one attention layout per layer for these tokens. Layers with equal graphs share a layout. All
        descriptors must be on the CPU. `keys` are the tokens that are read; None: `tokens`."""
        dropout = self.dropout.attention if self.training else 0.0
        options = {"bias": self.position.has_bias, "dropout": dropout, "dtype": dtype, "device": device}
        planners = dict(zip(self.graphs, self.blocks, strict=True))
        layouts = {graph: block.plan(graph, tokens, keys, **options) for graph, block in planners.items()}
        return tuple(layouts[graph] for graph in self.graphs)

    def plan_rows(self, tokens: Tokens, is_padded: bool, dtype: torch.dtype) -> tuple[Layout, ...]:
        """Returns one attention layout per layer for rows that are one sample each, with descriptors on the device. The
        layouts do not depend on values (see `attention.plan.plan_rows`)."""
        dropout = self.dropout.attention if self.training else 0.0
        options = {"is_padded": is_padded, "bias": self.position.has_bias, "dropout": dropout, "dtype": dtype}
        planners = dict(zip(self.graphs, self.blocks, strict=True))
        layouts = {graph: block.plan_rows(graph, tokens, **options) for graph, block in planners.items()}
        return tuple(layouts[graph] for graph in self.graphs)

    def check_arguments(self, x: Tensor, source: Tensor | None, padding_mask: Tensor | None, is_plain: bool) -> None:
        """Raises ValueError if the vectors or the padding mask have a wrong shape or type, or if the second set of
        cross-attention is missing."""
        if x.dim() != 3 or x.shape[2] != self.width:
            raise ValueError(f"x must have the shape (rows, tokens, {self.width}), not {tuple(x.shape)}")
        if source is None and len(self.blocks) and self.blocks[0].crosses:
            raise ValueError("the blocks read a second set, so source, the vectors of this set, is needed")
        if padding_mask is not None:
            check_padding(padding_mask, x, is_plain)

    def name_inputs(self, names: Sequence[str]) -> None:
        """Sets the names of the inputs 1, 2, ... Groups of inputs with separate weights need these names (`OwnLayers`).
        Raises ValueError if the names differ from the names in the groups."""
        own_layers = self.blocks[0].own_layers if len(self.blocks) else None
        self.input_groups = own_layers and own_layers.numbered(names)

    def group(self, tokens: Tokens) -> tuple[Tensor, ...] | None:
        """Returns the slots of each group of inputs with separate weights, one tensor per group. None if the blocks
        have no groups, or if `name_inputs` was not called."""
        return None if self.input_groups is None else slots_of(self.input_groups, tokens.input)

    def plan_cross(self, tokens: Tokens, source: Tokens, dtype=torch.float32, device="cpu") -> Layout:
        """Returns the layout of cross-attention from `tokens` to the second set `source`. Each token attends to all
        tokens of `source` with the same sample number."""
        return self.blocks[0].plan_cross(tokens, source, dtype=dtype, device=device)

    @property
    def caches(self) -> bool:
        """Whether all blocks have an `empty_state`, so that tokens can be read step by step."""
        return all(type(block).empty_state is not BaseBlock.empty_state for block in self.blocks)

    def empty_cache(self, rows: int, capacity: int, *, dtype=torch.float32, device="cpu") -> Cache:
        """Returns the state of all blocks before the first token, for up to `capacity` tokens in each of `rows` rows.
        Raises ContractError if a block returns something else."""
        states = [block.empty_state(rows, capacity, dtype=dtype, device=device) for block in self.blocks]
        return Cache(checked_states(self.blocks, states, LayerState) if self.checks_blocks else states, capacity)


def check_padding(padding_mask: Tensor, x: Tensor, is_plain: bool) -> None:
    """Raises ValueError if the padding mask has a wrong shape or type, or if the call of the transformer is not
    `is_plain`: its tokens or its cache then contain the padding."""
    if not is_plain:
        raise ValueError("padding_mask cannot be combined with tokens or cache, whose descriptors contain the padding")
    if padding_mask.shape != x.shape[:2] or padding_mask.dtype != torch.bool:
        form = f"{tuple(padding_mask.shape)} {padding_mask.dtype}"
        raise ValueError(f"padding_mask must have the shape {tuple(x.shape[:2])} and the type torch.bool, not {form}")
