"""`attend`: attention along any graph, computed by the fastest kernel that represents the graph exactly.

`plan` (plan.py) examines the graph and the tokens once per batch (on the CPU, outside any compiled region) and returns
a *layout*: a small frozen object that computes attention for this graph and these tokens. All layers with the same
graph share one layout. `attend` calls the layout. All masks are applied in this file.

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
    """Base class. A layout computes attention along one graph for one batch of tokens. It is called with queries (b, h,
    n, c), keys and values (b, g, m, c), a bias or None, and a dropout probability, and returns (b, h, n, c)."""

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
    """Returns for each query token the weighted sum of the values of the tokens that it reads, (b, h, n, c). The scores
    are scaled by 1/sqrt(c), where c is the number of channels per head.

    `key` and `value` may have fewer heads (g) than `query` (h): h / g neighbouring query heads then share one key and
    value head. `bias` is added to the scores and broadcasts to (b, h, n, m). `dropout` is the probability that an
    attention weight is dropped. Raises ValueError for a bias or dropout that the layout does not support.
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
    """Returns the result of PyTorch's scaled dot-product attention (SDPA). There may be fewer key heads than query
    heads (grouped heads). `scale` is the factor of the scores; None: 1/sqrt(c).

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
    """For rows that each contain one sample and no padding: SDPA without a mask, which is the fastest case of SDPA."""

    causal: bool

    def __call__(self, query, key, value, bias, dropout):
        return sdpa(query, key, value, causal=self.causal, dropout=dropout)


SHORT = 256
"""The maximum number of tokens per row for `Short`."""


@dataclass(frozen=True)
class Short(Layout):
    """For rows of up to `SHORT` tokens in half precision on a CPU: batched matrix products with the full score matrix.

    These products are faster than PyTorch's flash kernel: forward and backward of 96 heads of 64 x 32 took 1.8 ms
    instead of 7.6 ms (torch 2.14, two cores with AVX512-BF16); with a mask the difference is larger. In float32 the
    flash kernel is faster. `mask` is added to the scores: 0 if the query reads the key, else minus infinity. Its first
    size k is 1 (one mask for all rows) or the number of rows.
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
    """For any graph: SDPA with a dense mask. `mask` is True if the query reads the key; its first size k is 1 (one mask
    for all rows) or the number of rows. `empty` is True for queries that read no token: their output is zero instead of
    NaN. If `empty` is None, every query reads a token."""

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
    """For packed rows on a CPU: one attention without a mask for each sample. This is much cheaper than one attention
    with a mask for each row."""

    lengths: tuple[int, ...]
    """The number of tokens of each sample and of each run of padding, in the order of their slots. The sum of these
    numbers is the number of slots of all rows."""
    causal: bool

    def __call__(self, query, key, value, bias, dropout):
        parts = (rearrange(t, "b h n c -> 1 h (b n) c").split(self.lengths, dim=2) for t in (query, key, value))
        mixed = [sdpa(*heads, causal=self.causal, dropout=dropout) for heads in zip(*parts)]
        return rearrange(torch.cat(mixed, dim=2), "1 h (b n) c -> b h n c", b=len(query))


@dataclass(frozen=True)
class VariableLength(Layout):
    """For packed rows on CUDA: `varlen_attn` over the concatenated samples of the batch (half precision, no
    dropout)."""

    drops: ClassVar[bool] = False
    boundaries: Int[Tensor, "s"]
    """The first slot (row * n + column) of each sample and of each run of padding; then the number of all slots."""
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
    """For a causal window of `size` tokens on a CPU. The queries are split into blocks of `size` tokens. The queries of
    a block read keys of the same block and of the previous block."""

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
        """Returns the mask (k, w, 2w) of k blocks with w queries and 2w keys each: True if the query reads the key. A
        query reads its own key and the w - 1 preceding keys, but no key before the start of the row."""
        query = torch.arange(self.size, device=device)[:, None] + self.size
        key = torch.arange(2 * self.size, device=device)[None]
        band = ((key <= query) & (query - key < self.size)).expand(blocks, -1, -1)
        first = torch.arange(blocks, device=device)[:, None, None] == 0
        return band & ~(first & (key < self.size))


@dataclass(frozen=True)
class Flex(Layout):
    """For any graph on CUDA: FlexAttention with a block mask, which skips blocks of token pairs without edges."""

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
    """Returns (tensors, keyword arguments): the tensors `heads`, padded with zeros to `channels` channels, and `scale`
    for the kernel, which keeps the scores unchanged. The keyword arguments are empty if no channels were added."""
    missing = channels - heads[0].shape[-1]
    if not missing:
        return heads, {}
    return tuple(F.pad(t, (0, missing)) for t in heads), {"scale": 1 / math.sqrt(heads[0].shape[-1])}


def _varlen_attention():
    """Returns `varlen_attn`; None if this version of torch does not have this function (packed rows then use
    FlexAttention). The import is inside the function because it is slow."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def _varlen_causal(causal: bool) -> dict:
    """Returns the keyword argument for causality: `is_causal` in the first releases of `varlen_attn`, `window_size` in
    later releases."""
    if "is_causal" in inspect.signature(_varlen_attention()).parameters:
        return {"is_causal": causal}
    return {"window_size": (-1, 0) if causal else (-1, -1)}


_compiled_flex_attention = None


def _flex_attention(compiled: bool):
    """Returns FlexAttention, compiled if `compiled` is true (for a GPU), because without compilation it builds the
    complete score matrix. The first call compiles; the first call with other sizes compiles once more, for all sizes.
    With one compilation per size, torch would stop compiling after eight sizes."""
    global _compiled_flex_attention
    from torch.nn.attention.flex_attention import flex_attention

    if not compiled:
        return flex_attention
    if _compiled_flex_attention is None:
        _compiled_flex_attention = torch.compile(flex_attention)
    return _compiled_flex_attention
