"""Heads: what turns the core's vectors at supervised slots into a task's output."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .batch import SetPlan, Targets
from .layers.linear import Linear, linear
from .layers.norms import LayerNorm, Norm


class Unembedding(nn.Module):
    """A score for every id of a vocabulary, by a matrix of its own."""

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False):
        super().__init__()
        self.linear = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Tied(nn.Module):
    """A score for every id by the embedding table itself (Press & Wolf 2017, arXiv:1608.05859): no parameters of its own.
    `scaled` divides the vectors by the root of their width first, as T5 does."""

    def __init__(self, embedding: nn.Embedding, *, scaled: bool = False):
        super().__init__()
        self._table = (embedding,)  # in a tuple, so that the table is registered (and saved) only at its owner
        self.scale = embedding.embedding_dim**-0.5 if scaled else 1.0

    @property
    def table(self) -> Float[Tensor, "v d"]:
        return self._table[0].weight

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(x if self.scale == 1 else x * self.scale, self.table)


Head = Unembedding | Tied


class MaskedHead(nn.Module):
    """BERT's: one more layer (a matrix, a GELU, a normalisation) before the embedding table, and a bias for every id."""

    def __init__(self, embedding: nn.Embedding, *, norm: Callable[[int], Norm] = LayerNorm):
        super().__init__()
        self._table = (embedding,)
        self.linear = Linear(embedding.embedding_dim, embedding.embedding_dim)
        self.norm = norm(embedding.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    @property
    def table(self) -> Float[Tensor, "v d"]:
        return self._table[0].weight

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(self.norm(F.gelu(self.linear(x))), self.table, self.bias)


class Pooling(nn.Module):
    """Base of the ways to read one vector per sample off its tokens."""

    def __init__(self, width: int):
        super().__init__()

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        """The slots that are read, and the number (from 0) of the sample that each of them belongs to."""
        sample = planned.tokens.sample.flatten()
        slots = ((sample > 0) & (planned.tokens.input.flatten() > 0)).nonzero()[:, 0]
        return slots, sample[slots] - 1

    def forward(self, x: Float[Tensor, "t d"], groups: Int[Tensor, "t"], samples: int) -> Float[Tensor, "s d"]:
        raise NotImplementedError


class ClassToken(Pooling):
    """The first of the core's own tokens, as in BERT and ViT: needs `model.core_tokens` of 1 or more."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        if planned.own is None or not planned.own.shape[1]:
            raise ValueError(
                "pooling: class_token reads the core's own token, and there is none; set model.core_tokens: 1"
            )
        return planned.own[:, 0], torch.arange(len(planned.own))

    def forward(self, x, groups, samples):
        return x


class CoreTokens(Pooling):
    """The mean of all the core's own tokens, as AST and the distilled DeiT have it; `norm` normalises it."""

    def __init__(self, width: int, *, norm: Callable[[int], Norm] | None = None):
        super().__init__(width)
        self.norm = norm(width) if norm else nn.Identity()

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        if planned.own is None or not planned.own.shape[1]:
            raise ValueError(
                "pooling: core_tokens reads the core's own tokens, and there are none; set model.core_tokens: 2"
            )
        samples, each = planned.own.shape
        return planned.own.flatten(), torch.arange(samples).repeat_interleave(each)

    def forward(self, x, groups, samples):
        return self.norm(mean_of(x, groups, samples))


class MeanPooling(Pooling):
    """The mean over all of a sample's tokens, the core's own left out; `norm` normalises it."""

    def __init__(self, width: int, *, norm: Callable[[int], Norm] | None = None):
        super().__init__(width)
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, x, groups, samples):
        return self.norm(mean_of(x, groups, samples))


def mean_of(x: Float[Tensor, "t d"], groups: Tensor, samples: int) -> Float[Tensor, "s d"]:
    """The mean of each sample's vectors."""
    sums = x.new_zeros(samples, x.shape[1]).index_add_(0, groups, x)
    counts = x.new_zeros(samples).index_add_(0, groups, x.new_ones(len(x)))
    return sums / counts.clamp(min=1)[:, None]


class AttentionPooling(Pooling):
    """A weighted mean, whose weights are a learned query's scores, softmax over the sample's tokens."""

    def __init__(self, width: int):
        super().__init__(width)
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x, groups, samples):
        scores = (x.float() * self.query.float()).sum(1) / x.shape[
            1
        ] ** 0.5  # autocast would halve a product of matrices
        most = torch.full((samples,), -torch.inf, device=x.device).scatter_reduce(0, groups, scores, "amax")
        weights = (scores - most.detach()[groups]).exp()
        total = torch.zeros(samples, device=x.device).index_add(0, groups, weights)
        return x.new_zeros(samples, x.shape[1]).index_add(0, groups, (weights / total[groups])[:, None].to(x.dtype) * x)


class PooledLinear(nn.Module):
    """One vector per sample, then one linear map to `outputs` scores or numbers."""

    def __init__(self, pooling: Pooling, width: int, outputs: int):
        super().__init__()
        self.pooling, self.linear = pooling, Linear(width, outputs)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s v"]:
        return self.linear(self.pooling(x, targets.groups, len(targets.values)))
