"""Heads: from the core's output vectors at a task's supervised slots to the task's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .batch import SetPlan, Targets
from .layers.linear import Linear, linear
from .layers.norms import LayerNorm, Norm


class Head(nn.Module):
    """Base: vectors at a task's t supervised slots to its output: one row per slot, or per target where slots are
    pooled. Only pooling heads need the task's `targets`."""

    quantizes: ClassVar[bool] = False
    """Whether it gives tokens codes, and items of codes (`models/reconstruction.py`)."""
    tied: ClassVar[bool] = False
    """Whether it scores with the table of an input's embeddings (its `table`)."""
    inner_inputs: ClassVar[tuple[str, ...]] = ()
    """Its linear maps whose vectors a transformer of its own reads: they begin, and learn, as those of the model's
    inputs do (the role `input` of `models/initialization.py`)."""

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must turn vectors into an output: forward(self, x, targets)")

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"] | None:
        """One vector for each target, which the last linear map reads; None where slots are not pooled."""
        return None

    def weights(self) -> int:
        """How many weights multiply each vector: those of the matrices, biases not counted."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.dim() > 1)

    def vectors(self, targets: Targets) -> int:
        """How many vectors pass through the matrices: one per supervised slot."""
        return len(targets.values) if targets.slots is None else len(targets.slots)

    def flops(self, targets: Targets) -> int:
        """Floating-point operations of one micro-batch, forward and backward: 6 for every weight and vector."""
        return 6 * self.weights() * self.vectors(targets)


class VocabularyHead(Head):
    """Base of the heads that give every id of a vocabulary a score (logit); built from the ids' table of embeddings."""

    tied = True

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self._table = (embedding,)  # in a tuple, so that the table is registered (and saved) only at its owner

    @property
    def table(self) -> Float[Tensor, "v d"]:
        return self._table[0].weight


class Unembedding(VocabularyHead):
    """Scores by a matrix of its own, not tied to the embedding table; `bias` adds a learned number per id."""

    tied = False

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False):
        super().__init__(embedding)
        self.linear = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Tied(VocabularyHead):
    """Scores by the embedding table itself (Press & Wolf 2017, arXiv:1608.05859): no parameters of its own. `scaled`
    divides the vectors by the square root of their width first, as T5 does."""

    def __init__(self, embedding: nn.Embedding, *, scaled: bool = False):
        super().__init__(embedding)
        self.scale = embedding.embedding_dim**-0.5 if scaled else 1.0

    def weights(self) -> int:
        return self.table.numel()

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(x if self.scale == 1 else x * self.scale, self.table)


class MaskedHead(VocabularyHead):
    """BERT's head of masked language modelling: one more layer (matrix, GELU, normalisation) before the embedding
    table, and a bias for every id."""

    def __init__(self, embedding: nn.Embedding, *, norm: Callable[[int], Norm] = LayerNorm):
        super().__init__(embedding)
        self.linear = Linear(embedding.embedding_dim, embedding.embedding_dim)
        self.norm = norm(embedding.embedding_dim)
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings))

    def weights(self) -> int:
        return super().weights() + self.table.numel()

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(self.norm(F.gelu(self.linear(x))), self.table, self.bias)


class SlotLinear(Head):
    """Every supervised slot's vector mapped linearly to `outputs` scores (categories) or numbers. With `bounds`, the
    lowest and the highest value of each output, (v,) both, a tanh keeps the numbers between them."""

    def __init__(self, width: int, outputs: int, bounds: tuple[Float[Tensor, "v"], Float[Tensor, "v"]] | None = None):
        super().__init__()
        self.linear, self.bounded = Linear(width, outputs), bounds is not None
        if bounds:
            low, high = bounds
            self.register_buffer("centre", (low + high) / 2, persistent=False)
            self.register_buffer("reach", (high - low) / 2, persistent=False)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        found = self.linear(x)
        return self.centre + self.reach * found.tanh() if self.bounded else found


class Pooling(nn.Module):
    """Base of the poolings: vectors of t tokens, each of the sample with the number (from 0) in `groups`, to one vector
    for each of s samples."""

    def __init__(self, width: int):
        super().__init__()

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        """The slots that are pooled, (t), as row * n + column, and the number (from 0) of each slot's sample, (t)."""
        sample = planned.tokens.sample.flatten()
        slots = ((sample > 0) & (planned.tokens.input.flatten() > 0)).nonzero()[:, 0]
        return slots, sample[slots] - 1

    def forward(self, x: Float[Tensor, "t d"], groups: Int[Tensor, "t"], samples: int) -> Float[Tensor, "s d"]:
        raise NotImplementedError


def core_slots(planned: SetPlan, lacking: str, wanted: int) -> Int[Tensor, "s o"]:
    """The slots of the core tokens, by sample. Raises ValueError where there are none: what is `lacking`, and the
    `wanted` number of them."""
    if planned.own is None or not planned.own.shape[1]:
        raise ValueError(f"pooling: {lacking}; set model.core_tokens: {wanted}")
    return planned.own


class ClassToken(Pooling):
    """The first core token, as in BERT and ViT. Raises ValueError unless `model.core_tokens` is 1 or more."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        own = core_slots(planned, "class_token reads the core's own token, and there is none", 1)
        return own[:, 0], torch.arange(len(own))

    def forward(self, x, groups, samples):
        return x


class MeanPooling(Pooling):
    """The mean over all of a sample's tokens but the core tokens; `norm` normalises the mean."""

    def __init__(self, width: int, *, norm: Callable[[int], Norm] | None = None):
        super().__init__(width)
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, x, groups, samples):
        sums = x.new_zeros(samples, x.shape[1]).index_add_(0, groups, x)
        counts = x.new_zeros(samples).index_add_(0, groups, x.new_ones(len(x)))
        return self.norm(sums / counts.clamp(min=1)[:, None])


class CoreTokens(MeanPooling):
    """The mean of all core tokens, as in AST and the distilled DeiT; `norm` normalises the mean. Raises ValueError
    unless `model.core_tokens` is 1 or more."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        own = core_slots(planned, "core_tokens reads the core's own tokens, and there are none", 2)
        return own.flatten(), torch.arange(len(own)).repeat_interleave(own.shape[1])


class AttentionPooling(Pooling):
    """A weighted mean over all of a sample's tokens but the core tokens; the weights are the softmax of the tokens'
    scaled products with a learned query."""

    def __init__(self, width: int):
        super().__init__(width)
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x, groups, samples):
        # not a matrix product: autocast would compute it in half precision
        scores = (x.float() * self.query.float()).sum(1) / x.shape[1] ** 0.5
        most = torch.full((samples,), -torch.inf, device=x.device).scatter_reduce(0, groups, scores, "amax")
        weights = (scores - most.detach()[groups]).exp()
        total = torch.zeros(samples, device=x.device).index_add(0, groups, weights)
        return x.new_zeros(samples, x.shape[1]).index_add(0, groups, (weights / total[groups])[:, None].to(x.dtype) * x)


def slots_read(pooling: Callable[..., Pooling], planned: SetPlan) -> tuple[Tensor, Tensor]:
    """`Pooling.slots` of a pooling class, or of the class that a part of a configuration names (its `target`)."""
    return getattr(pooling, "target", pooling).slots(planned)


class PooledLinear(Head):
    """Pool to one vector per sample, then map it linearly to `outputs` scores (classes) or numbers (regression)."""

    def __init__(self, pooling: Pooling, width: int, outputs: int):
        super().__init__()
        self.pooling, self.linear = pooling, Linear(width, outputs)

    def vectors(self, targets: Targets) -> int:
        return len(targets.values)

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"]:
        return self.pooling(x, targets.groups, len(targets.values))

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s v"]:
        return self.linear(self.pooled(x, targets))
