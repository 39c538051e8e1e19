"""What an attention graph means for given tokens: its mask, the dependence between tokens through all layers, and the
tokens that a cache must keep. The mask is applied in `kernels.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_

import torch
from jaxtyping import Bool
from torch import Tensor

from ..tokens import PADDING, Tokens, within_samples
from .graph import Graph, Node


def reads(graph: Graph, query: Node, key: Node, self_attention: bool = True):
    """Returns whether `query` reads `key` by the graph and two rules: no token reads padding or another sample; in
    self-attention every token reads itself. The result is a bool, or a bool tensor that broadcasts to all pairs."""
    same_sample = query.sample == key.sample
    visible = graph(query, key) & same_sample & (key.sample != PADDING)
    return visible | (same_sample & (query.position[0] == key.position[0])) if self_attention else visible


def dense_mask(graph: Graph, queries: Tokens, keys: Tokens, self_attention: bool = True) -> Bool[Tensor, "b n m"]:
    """Returns the attention mask of a graph: `mask[b, i, j]` is True if query token i of row b reads key token j."""
    within = within_samples(queries, keys if self_attention else None)
    return mask_within(graph, within, within_samples(keys), self_attention)


def mask_within(graph: Graph, queries: Tokens, keys: Tokens, self_attention: bool = True) -> Bool[Tensor, "b n m"]:
    """Returns the same mask as `dense_mask`, for tokens whose running order is already counted within samples (the
    output of `within_samples`)."""
    (b, n), m = queries.shape, keys.shape[1]
    return reads(graph, Node.every(queries, 2), Node.every(keys, 1), self_attention).expand(b, n, m)


def lasting(graphs: Sequence[Graph], tokens: Tokens) -> Bool[Tensor, "b n"]:
    """Returns True for each token that a token appended to the same row may read in at least one layer. A cache can
    drop all other tokens. The first token of a sample is always True, because running orders are counted from it.
    Padding is False."""
    relative = within_samples(tokens)
    order = relative.position[..., 0]
    key = Node(relative.input, relative.sample, relative.item, relative.position.unbind(-1))
    end = order.amax(dim=1, keepdim=True) + 1
    readable = reduce(or_, [graph.later(key, end) for graph in {*graphs}])
    return (readable | (order == 0)) & (tokens.sample != PADDING)


def reach(graphs: Sequence[Graph], tokens: Tokens) -> Bool[Tensor, "b n n"]:
    """Returns the dependence through all layers: `reach[b, i, j]` is True if the output of token i can depend on token
    j.

    `graphs` holds one graph per layer, in the order of the layers. The mask of one layer does not show this dependence:
    with `causal | from(image)` and the order text, image, the image reads the later text in layer 1, and the earlier
    text reads the image in layer 2.
    """
    b, n = tokens.shape
    reachable = torch.eye(n).expand(b, n, n)
    masks = {graph: dense_mask(graph, tokens, tokens).float() for graph in set(graphs)}
    for graph in graphs:
        reachable = (masks[graph] @ reachable).clamp_(max=1)
    return reachable > 0
