"""An attention graph over given tokens: its mask, what depends on what over all layers, and what can be forgotten."""

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
    """The graph and two rules: no token reads padding or another sample; in self-attention every token reads itself."""
    own = query.sample == key.sample
    visible = graph(query, key) & own & (key.sample != PADDING)
    return visible | (own & (query.position[0] == key.position[0])) if self_attention else visible


def dense_mask(graph: Graph, queries: Tokens, keys: Tokens, self_attention: bool = True) -> Bool[Tensor, "b n m"]:
    """The graph as a matrix: `mask[b, i, j]` is True where query token i reads key token j."""
    within = within_samples(queries, keys if self_attention else None)
    return mask_within(graph, within, within_samples(keys), self_attention)


def mask_within(graph: Graph, queries: Tokens, keys: Tokens, self_attention: bool = True) -> Bool[Tensor, "b n m"]:
    """`dense_mask` for tokens whose running order is already counted within samples (`within_samples`)."""
    (b, n), m = queries.shape, keys.shape[1]
    return reads(graph, Node.every(queries, 2), Node.every(keys, 1), self_attention).expand(b, n, m)


def lasting(graphs: Sequence[Graph], tokens: Tokens) -> Bool[Tensor, "b n"]:
    """The tokens of these rows that one joining them behind their end may still read, in any layer: all others can be
    forgotten. The first token of a sample always stays, since running orders are counted from it."""
    relative = within_samples(tokens)
    order = relative.position[..., 0]
    key = Node(relative.input, relative.sample, relative.item, relative.position.unbind(-1))
    end = order.amax(dim=1, keepdim=True) + 1
    read = reduce(or_, [graph.later(key, end) for graph in {*graphs}])
    return (read | (order == 0)) & (tokens.sample != PADDING)


def reach(graphs: Sequence[Graph], tokens: Tokens) -> Bool[Tensor, "b n n"]:
    """Dependence through all layers: `reach[b, i, j]` is True where the output of token i may depend on token j.

    `graphs` holds one graph per layer, first layer first. One mask is not enough to see it: with
    `causal | from(image)` and the order text, image, earlier text reads later text through the image in two layers.
    """
    b, n = tokens.shape
    known = torch.eye(n).expand(b, n, n)
    masks = {graph: dense_mask(graph, tokens, tokens).float() for graph in set(graphs)}
    for graph in graphs:
        known = (masks[graph] @ known).clamp_(max=1)
    return known > 0
