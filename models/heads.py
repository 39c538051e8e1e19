"""Heads: what turns the core's vectors at supervised places into a task's output."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from .linear import Linear, linear


class Unembedding(nn.Module):
    """A score for every id of a vocabulary, by a matrix of its own."""

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False):
        super().__init__()
        self.linear = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Tied(nn.Module):
    """A score for every id by the embedding table itself (Press & Wolf 2017, arXiv:1608.05859): no parameters of its own."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self._table = (embedding,)  # in a tuple, so that the table is registered (and saved) only at its owner

    def forward(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t v"]:
        return linear(x, self._table[0].weight)


Head = Unembedding | Tied
