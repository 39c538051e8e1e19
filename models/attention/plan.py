"""Chooses the kernel that computes attention along a graph for the tokens of a batch. The choice is made once per
batch, for all layers with that graph."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from ..tokens import PADDING, Tokens, alike, within_samples
from .graph import Causal, Graph, Node, SameSample, Window
from .kernels import SHORT, Band, Dense, Flex, Layout, PerSample, Plain, VariableLength, _varlen_attention, short
from .mask import dense_mask, mask_within, reads


def plan(
    graph: Graph, queries: Tokens, keys: Tokens | None = None, *, bias: bool = False, dropout: float = 0.0,
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
) -> Layout:  # fmt: skip
    """Returns the layout of `graph` for these tokens, whose descriptors must be on the CPU. Call this function once per
    batch and graph; all layers with this graph use the layout.

    `keys` are the tokens that are read: None for the queries themselves, or, with a cache, the cached tokens followed
    by the queries. For keys of another set use `plan_cross`. The layout supports a bias if `bias` is true, the
    probability `dropout`, and tensors with this `dtype` and `device`.
    """
    keys, device = queries if keys is None else keys, torch.device(device)
    layout = _plan_simple(graph, queries, keys, device, dtype, bias, dropout)
    return _plan_dense(graph, queries, keys, device, dtype, bias or dropout) if layout is None else layout.to(device)


def _plan_dense(graph, queries, keys, device, dtype, has_bias_or_dropout) -> Layout:
    """Returns the layout of any other graph, which has a mask."""
    if device.type == "cuda":
        if has_bias_or_dropout:
            return Dense(_mask_on_device(graph, queries, keys, device))
        return _plan_flex(graph, queries, keys, device)
    if _short_is_faster(device, dtype, keys.shape[1]):
        return short(alike(dense_mask(graph, queries, keys)), dtype)
    return Dense(alike(dense_mask(graph, queries, keys)))


def plan_cross(
    graph: Graph, queries: Tokens, keys: Tokens, *, dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Layout:  # fmt: skip
    """Returns the layout of `graph` for cross-attention from `queries` to `keys`, two sets of tokens with descriptors
    on the CPU. The output of a query that reads no token is zero.

    The output at padding is not used, so padding queries may read all keys. Then, if every other query also reads all
    keys, no mask is needed.
    """
    mask = dense_mask(graph, queries, keys, self_attention=False) | (queries.sample == PADDING)[..., None]
    empty = ~mask.any(dim=-1)
    if empty.any():
        return Dense(mask | empty[..., None], empty[:, None, :, None]).to(device)
    short_rows = _short_is_faster(torch.device(device), dtype, max(mask.shape[1:]))
    if mask.all() and not short_rows:
        return Plain(causal=False)
    return short(mask[:1] if mask.all() else mask, dtype) if short_rows else Dense(mask).to(device)


def plan_rows(
    graph: Graph, tokens: Tokens, *, is_padded: bool = False, bias: bool = False, dropout: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Layout:  # fmt: skip
    """Returns the layout of `graph` for rows that consist of one sample each (`plain_tokens`), with descriptors on the
    device. The choice does not depend on the values of the descriptors, so that `torch.export` and `torch.compile` can
    trace it. `is_padded`: whether some tokens are padding."""
    device, length = tokens.sample.device, tokens.shape[1]
    simple = None if bias or is_padded else _simple(graph.parts())
    if simple and (layout := _plan_whole_rows(*simple, length, device, dtype)):
        return layout
    if device.type == "cuda" and not (bias or dropout or torch.compiler.is_compiling()):
        return plan(graph, tokens.to("cpu"), dtype=dtype, device=device)
    rows = tokens if is_padded else tokens.select(slice(0, 1))
    mask = mask_within(graph, rows, rows)
    return short(mask, dtype) if _short_is_faster(device, dtype, length) else Dense(mask)


def _simple(parts: Collection[Graph]) -> tuple[Window | None, bool] | None:
    """Returns (window, whether the graph is causal) for the parts of a conjunction of `Causal`, `SameSample` and at
    most one window with `Causal`. None for any other graph."""
    windows = [part for part in parts if isinstance(part, Window) and part.axis == 0]
    causal = Causal() in parts
    if {*parts} - {*windows, Causal(), SameSample()} or len(windows) > 1 or (windows and not causal):
        return None
    return (windows[0] if windows else None), causal


def _plan_window(size: int, length: int, device: torch.device) -> Layout | None:
    is_band = device.type == "cpu" and size * 2 < length and not torch.compiler.is_compiling()  # it needs fixed rows
    return Plain(causal=True) if size >= length else Band(size) if is_band else None


def _plan_whole_rows(
    window: Window | None, causal: bool, length: int, device: torch.device, dtype: torch.dtype
) -> Layout | None:
    """Returns the layout of a simple graph for rows that consist of one sample without padding; None: no such
    layout."""
    if window:
        return _plan_window(math.ceil(min(window.size, length)), length, device)  # integer distances: < 2.5 is < 3
    if not _short_is_faster(device, dtype, length):
        return Plain(causal)
    square = torch.ones(1, length, length, dtype=torch.bool)
    return short(square.tril() if causal else square, dtype)


def _plan_simple(graph, queries, keys, device, dtype, bias, dropout) -> Layout | None:
    """Returns a layout without a dense mask that computes the graph exactly. Returns None if there is a bias, the graph
    is not a conjunction (`&`) of `Causal`, `SameSample` and at most one window with `Causal`, or no such layout exists
    for these tokens."""
    simple = _simple({Causal() if isinstance(p, Causal) and _in_order(keys, p.axis) else p for p in graph.parts()})
    if bias or simple is None:
        return None
    return _plan_conjunction(*simple, queries, keys, device, dtype, dropout)


def _plan_conjunction(window, causal, queries, keys, device, dtype, dropout) -> Layout | None:
    """Returns the layout of a conjunction (see `_simple`)."""
    sample = keys.sample
    one_sample = bool((sample == sample[:, :1]).all()) and bool((sample != PADDING).all())  # every row, no padding
    if keys.shape[1] != queries.shape[1]:
        step = queries.shape[1] == 1 and one_sample and not window
        return Plain(causal=False) if step else None
    if one_sample:
        return _plan_whole_rows(window, causal, keys.shape[1], device, dtype)
    return None if window else _plan_packed(keys, causal, device, dtype, dropout)


def _in_order(tokens: Tokens, axis: int) -> bool:
    """Whether the positions of each sample on `axis` increase from token to token. Then causality on this axis equals
    causality in the running order."""
    if axis == 0:
        return True
    increasing = tokens.position[..., axis].diff(dim=1) > 0
    return bool((increasing | (tokens.sample.diff(dim=1) != 0) | (tokens.sample[:, 1:] == PADDING)).all())


def _short_is_faster(device: torch.device, dtype: torch.dtype, keys: int) -> bool:
    """Whether `Short` is faster than PyTorch's kernels: half precision on a CPU with at most `SHORT` keys per row."""
    return dtype in (torch.bfloat16, torch.float16) and device.type == "cpu" and keys <= SHORT


def _plan_packed(tokens: Tokens, causal: bool, device: torch.device, dtype: torch.dtype, dropout: float):
    """Returns the layout of attention within the samples of packed rows. Returns None if the slots of a sample are not
    contiguous; on a CPU if `Short` is faster; on a GPU with dropout, in float32, or without `varlen_attn`."""
    is_start = F.pad(tokens.sample.diff(dim=1) != 0, (1, 0), value=True)  # of a sample, a run of padding or a row
    starts = is_start.flatten().nonzero()[:, 0]
    samples = tokens.sample.flatten()[starts]
    samples = samples[samples != PADDING]
    if len(samples.unique()) < len(samples):
        return None
    boundaries = F.pad(starts, (0, 1), value=tokens.sample.numel())
    if device.type == "cpu":  # `Short`, if possible, is faster than `PerSample`
        use_short = _short_is_faster(device, dtype, tokens.shape[1])
        return None if use_short else PerSample(tuple(boundaries.diff().tolist()), causal)
    if dropout or _varlen_attention() is None or dtype not in (torch.float16, torch.bfloat16):
        return None
    return VariableLength(boundaries.int(), int(boundaries.diff().max()), causal)


def _mask_on_device(graph: Graph, queries: Tokens, keys: Tokens, device: torch.device) -> Bool[Tensor, "k n m"]:
    """Returns the dense mask. It is computed on the device, because copying it from the CPU would be slow. Its first
    size is 1 if all rows have equal descriptors (checked on the CPU), else the number of rows."""
    if _rows_alike(queries, keys):
        queries, keys = (tokens.select(slice(0, 1)) for tokens in (queries, keys))
    return mask_within(graph, within_samples(queries, keys).to(device), within_samples(keys).to(device))


def _rows_alike(queries: Tokens, keys: Tokens) -> bool:
    """Whether all rows have equal descriptors, apart from the numbering of samples and items, and thus equal masks."""

    def both(name: str) -> Tensor:
        return torch.cat([getattr(queries, name), getattr(keys, name)], dim=1)

    def renumbered(numbers: Int[Tensor, "b n"]) -> Int[Tensor, "b n"]:
        first = numbers.masked_fill(numbers == PADDING, numbers.max()).amin(dim=1, keepdim=True)
        return torch.where(numbers == PADDING, PADDING, numbers - first + 1)

    if not keys.sample.numel():
        return False
    position = both("position").nan_to_num(nan=torch.inf)
    descriptors = (both("input"), renumbered(both("sample")), renumbered(both("item")), position)
    return all(bool((rows == rows[:1]).all()) for rows in descriptors)


def _plan_flex(graph: Graph, queries: Tokens, keys: Tokens, device: torch.device) -> Flex:
    """Returns a layout with FlexAttention's block mask for the graph. The function `reads` is the `mask_mod`."""
    from torch.nn.attention.flex_attention import create_block_mask

    relative = within_samples(queries, keys).to(device), within_samples(keys).to(device)
    sides = [(t.input, t.sample, t.item, t.position.unbind(-1)) for t in relative]

    def node(side, row, index) -> Node:
        *descriptors, position = side
        return Node(*(values[row, index] for values in descriptors), [axis[row, index] for axis in position])

    (b, n), m = queries.shape, keys.shape[1]
    block_mask = create_block_mask(
        lambda row, head, query, key: reads(graph, node(sides[0], row, query), node(sides[1], row, key)),
        b, None, n, m, device=device,
    )  # fmt: skip
    return Flex(block_mask)
