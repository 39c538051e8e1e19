"""`attend`: attention along any graph, computed by the fastest kernel that represents the graph exactly.

`plan` (plan.py) examines the graph and the tokens once per batch (on the CPU, outside any compiled region) and returns
a *layout*, a small frozen object that all layers with that graph share. `attend` runs the layout; all masks are applied
in this file.

| graph                              | CUDA                              | CPU                                  |
| ---------------------------------- | --------------------------------- | ------------------------------------ |
| causal or full, one sample per row | `Plain` (SDPA)                    | `Plain`                              |
| causal or full, within samples     | `VariableLength` (half precision) | `PerSample`: a loop over samples     |
| causal window, one sample per row  | `Flex`                            | `Band`, if less than half of the row |
| any other graph                    | `Flex` with a block mask          | `Dense` (SDPA with the mask)         |
| any bias; other graph with dropout | `Dense`                           | `Dense`                              |

In half precision on a CPU, `Short` replaces `Plain`, `PerSample` and `Dense` for rows of up to 256 tokens.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

Heads = Float[Tensor, "b h n c"]

KeyHeads = Float[Tensor, "b g m c"]


@dataclass(frozen=True)
class Layout:
    """Base class: the computation of one graph for one batch of tokens. A layout is called with queries (b, h, n, c),
    keys and values (b, g, m, c), a bias and a dropout probability, and returns (b, h, n, c)."""

    adds_bias: ClassVar[bool] = False
    """Whether the layout supports a bias on the scores."""
    drops: ClassVar[bool] = True
    """Whether the layout supports dropout of attention weights."""

    def __call__(self, query: Heads, key: KeyHeads, value: KeyHeads, bias: Tensor | None, dropout: float) -> Heads:
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Layout:
        """Returns the layout with its tensors on another device; the copy does not block the CPU."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def attend(
    query: Heads, key: KeyHeads, value: KeyHeads, layout: Layout, *, bias: Tensor | None = None, dropout: float = 0.0
) -> Heads:
    """Returns for each query token the weighted sum of the values that it reads; scores are scaled by 1/sqrt(c).

    `key` and `value` may have fewer heads than `query` (grouped queries); each of their g heads is shared by h / g
    neighbouring query heads. `bias` is added to the scores and broadcasts to (b, h, n, m). `dropout` is the probability
    of dropping a weight. Raises ValueError for a bias or dropout that the layout does not support.
    """
    if bias is not None and not layout.adds_bias:
        raise ValueError(f"{type(layout).__name__} does not support a bias: plan with bias=True")
    if dropout and not layout.drops:
        raise ValueError(f"{type(layout).__name__} does not support dropout: plan with dropout={dropout}")
    return layout(query, key, value, bias, dropout)


def sdpa(
    query: Heads, key: KeyHeads, value: KeyHeads, mask: Tensor | None = None, causal: bool = False,
    dropout: float = 0.0, scale: float | None = None,
) -> Heads:  # fmt: skip
    """PyTorch's scaled dot-product attention (SDPA), also for fewer key heads than query heads. `scale` multiplies the
    scores (None: 1/sqrt(c)).

    On CUDA no fast kernel supports a mask together with grouped heads, so keys and values are repeated there."""
    grouped = query.shape[1] != key.shape[1]
    if grouped and mask is not None and query.is_cuda:
        key, value, grouped = *repeated(key, value, query.shape[1]), False
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def repeated(key: KeyHeads, value: KeyHeads, heads: int) -> tuple[Heads, Heads]:
    """Returns keys and values with each head repeated for all query heads that share it."""
    key, value = (repeat(t, "b g n c -> b (g r) n c", r=heads // t.shape[1]) for t in (key, value))
    return key, value


@dataclass(frozen=True)
class Plain(Layout):
    """Every row is one sample without padding: SDPA without a mask, its fast path."""

    causal: bool

    def __call__(self, query, key, value, bias, dropout):
        return sdpa(query, key, value, causal=self.causal, dropout=dropout)


SHORT = 256
"""The maximum number of tokens per row for `Short`."""


@dataclass(frozen=True)
class Short(Layout):
    """Rows of up to `SHORT` tokens in half precision on a CPU: batched matrix products with the full score matrix.

    In this case it is faster than PyTorch's flash kernel: forward and backward of 96 heads of 64 x 32 took 1.8 ms
    instead of 7.6 ms (torch 2.14, two cores with AVX512-BF16); with a mask the difference is larger. In float32 the
    flash kernel is faster. `mask` (one for all rows, or one per row) is added to the scores: 0 if the query reads the
    key, else minus infinity.
    """

    adds_bias: ClassVar[bool] = True
    mask: Float[Tensor, "k n m"]

    def __call__(self, query, key, value, bias, dropout):
        b, h, _, c = query.shape
        if key.shape[1] != h:
            key, value = repeated(key, value, h)
        query, key, value = (rearrange(t, "b h n c -> (b h) n c") for t in (query, key, value))
        mask = self.mask if len(self.mask) == 1 else repeat(self.mask, "b n m -> (b h) n m", h=h)
        if bias is not None:
            mask = (self.mask[:, None] + bias).to(query.dtype).expand(b, h, -1, -1).flatten(0, 1)
        weights = torch.baddbmm(mask.to(query.dtype), query, key.mT, alpha=1 / math.sqrt(c)).softmax(dim=-1)
        mixed = torch.bmm(F.dropout(weights, dropout) if dropout else weights, value)
        return rearrange(mixed, "(b h) n c -> b h n c", b=b)


def short(mask: Bool[Tensor, "k n m"], dtype: torch.dtype) -> Short:
    """Returns the `Short` layout of a dense mask."""
    return Short(torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, -torch.inf))


@dataclass(frozen=True)
class Dense(Layout):
    """Any graph: SDPA with a dense mask (one for all rows, or one per row; True: the query reads the key). `empty`
    marks queries that read no token; their output is zero instead of NaN."""

    adds_bias: ClassVar[bool] = True
    mask: Bool[Tensor, "k n m"]
    empty: Bool[Tensor, "b 1 n 1"] | None = None

    def __call__(self, query, key, value, bias, dropout):
        mask = self.mask[:, None]
        if bias is not None:
            mask = bias.masked_fill(~mask, -torch.inf).to(query.dtype)
        mixed = sdpa(query, key, value, mask, dropout=dropout)
        return mixed if self.empty is None else mixed.masked_fill(self.empty, 0.0)


@dataclass(frozen=True)
class PerSample(Layout):
    """Packed rows on a CPU: one small attention without a mask per sample, which is much cheaper than one masked
    attention per row."""

    lengths: tuple[int, ...]
    """The number of tokens of each sample or run of padding, in the order of their slots; the sum is the number of
    slots of all rows."""
    causal: bool

    def __call__(self, query, key, value, bias, dropout):
        parts = (rearrange(t, "b h n c -> 1 h (b n) c").split(self.lengths, dim=2) for t in (query, key, value))
        mixed = [sdpa(*heads, causal=self.causal, dropout=dropout) for heads in zip(*parts)]
        return rearrange(torch.cat(mixed, dim=2), "1 h (b n) c -> b h n c", b=len(query))


@dataclass(frozen=True)
class VariableLength(Layout):
    """Packed rows on CUDA: `varlen_attn` over the concatenated samples of the batch (half precision, no dropout)."""

    drops: ClassVar[bool] = False
    boundaries: Int[Tensor, "s"]
    """The first slot (row * n + column) of each sample or run of padding, followed by the number of all slots."""
    longest: int
    """The maximum number of tokens between two boundaries."""
    causal: bool

    def __call__(self, query, key, value, bias, dropout):
        if key.shape[1] != query.shape[1]:
            key, value = repeated(key, value, query.shape[1])
        channels = query.shape[-1]
        (query, key, value), scale = padded(-(-channels // 8) * 8, query, key, value)  # the kernel needs multiples of 8
        flat = [rearrange(t, "b h n c -> (b n) h c") for t in (query, key, value)]
        ranges = (self.boundaries, self.boundaries, self.longest, self.longest)  # of queries, then of keys
        mixed = _varlen_attention()(*flat, *ranges, **_varlen_causal(self.causal), **scale)
        return rearrange(mixed[..., :channels], "(b n) h c -> b h n c", b=len(query))


@dataclass(frozen=True)
class Band(Layout):
    """A causal window of `size` tokens on a CPU. Queries are split into blocks of `size`; each block reads the keys of
    the same and of the previous block."""

    size: int

    def __call__(self, query, key, value, bias, dropout):
        n, w = query.shape[2], self.size
        blocks = -(-n // w)
        query, key, value = (F.pad(t, (0, 0, 0, blocks * w - n)) for t in (query, key, value))
        query = rearrange(query, "b h (k w) c -> (b k) h w c", w=w)
        near = (F.pad(t, (0, 0, w, 0)).unfold(2, 2 * w, w) for t in (key, value))
        key, value = (rearrange(t, "b h k c m -> (b k) h m c") for t in near)
        mask = self.visible(blocks, query.device).repeat(len(query) // blocks, 1, 1)[:, None]
        mixed = sdpa(query, key, value, mask, dropout=dropout)
        return rearrange(mixed, "(b k) h w c -> b h (k w) c", k=blocks)[:, :, :n]

    def visible(self, blocks: int, device) -> Bool[Tensor, "k w m"]:
        """Returns the mask (k, w, 2w) from the w queries of k blocks to 2w keys each: a query reads the last w keys up
        to itself, but none before the start of the row."""
        query = torch.arange(self.size, device=device)[:, None] + self.size
        key = torch.arange(2 * self.size, device=device)[None]
        band = ((key <= query) & (query - key < self.size)).expand(blocks, -1, -1)
        first = torch.arange(blocks, device=device)[:, None, None] == 0
        return band & ~(first & (key < self.size))


@dataclass(frozen=True)
class Flex(Layout):
    """Any graph on CUDA: FlexAttention with a block mask, which skips blocks of token pairs without edges."""

    drops: ClassVar[bool] = False
    block_mask: object

    def __call__(self, query, key, value, bias, dropout):
        grouped, channels = query.shape[1] != key.shape[1], query.shape[-1]
        (query, key, value), scale = padded(max(channels, NARROWEST), query, key, value)
        kernel = _flex_attention(query.is_cuda)
        mixed = kernel(query, key, value, block_mask=self.block_mask, enable_gqa=grouped, **scale)
        return mixed[..., :channels]

    def to(self, device):
        return Flex(self.block_mask.to(device))


NARROWEST = 16
"""The minimum number of channels per head for FlexAttention's GPU kernel."""


def padded(channels: int, *heads: Tensor) -> tuple[tuple[Tensor, ...], dict[str, float]]:
    """Pads queries, keys and values with zeros to `channels` channels. Also returns the keyword argument `scale` that
    keeps the scores unchanged, if channels were added."""
    missing = channels - heads[0].shape[-1]
    if not missing:
        return heads, {}
    return tuple(F.pad(t, (0, missing)) for t in heads), {"scale": 1 / math.sqrt(heads[0].shape[-1])}


def _varlen_attention():
    """Returns `varlen_attn`, or None if this version of torch does not have it (packed rows then use FlexAttention).
    Imported here because the import is slow."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _varlen_causal(causal: bool) -> dict:
    """The keyword argument for causality: `is_causal` in the first releases of `varlen_attn`, later `window_size`."""
    if "is_causal" in inspect.signature(_varlen_attention()).parameters:
        return {"is_causal": causal}
    return {"window_size": (-1, 0) if causal else (-1, -1)}


_compiled_flex_attention = None


def _flex_attention(compiled: bool):
    """Returns FlexAttention. For a GPU it is compiled at the first use, since without compilation it builds the
    complete score matrix. When a size changes, it is compiled once more, for all sizes: with one compilation per size,
    torch would stop compiling after eight."""
    global _compiled_flex_attention
    from torch.nn.attention.flex_attention import flex_attention

    if not compiled:
        return flex_attention
    if _compiled_flex_attention is None:
        _compiled_flex_attention = torch.compile(flex_attention)
    return _compiled_flex_attention
