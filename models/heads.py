"""Heads: they map the core's output vectors at the supervised slots of a task to the output of the task."""

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
    """Base class. Maps the vectors at the t supervised slots of a task to its output: one row per slot, or one row per
    target if slots are pooled. Only pooling heads use `targets`."""

    quantizes: ClassVar[bool] = False
    """Whether the head encodes tokens as codes and decodes codes (`models/reconstruction.py`)."""
    tied: ClassVar[bool] = False
    """Whether the head computes scores with the embedding table of an input (its `table`)."""
    inner_inputs: ClassVar[tuple[str, ...]] = ()
    """The names of the linear layers whose outputs a transformer inside the head reads. They are initialised and
    trained like the model's inputs (the role `input` of `models/initialization.py`)."""

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must turn vectors into an output: forward(self, x, targets)")

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"] | None:
        """Returns one vector per target, the input of the last linear layer; None if slots are not pooled."""
        return None

    def weights(self) -> int:
        """The number of weights that multiply each vector: those of the matrices, without biases."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.dim() > 1)

    def vectors(self, targets: Targets) -> int:
        """The number of vectors that pass through the matrices: one per supervised slot."""
        return len(targets.values) if targets.slots is None else len(targets.slots)

    def flops(self, targets: Targets) -> int:
        """The floating-point operations of one micro-batch, forward and backward: 6 per weight and vector."""
        return 6 * self.weights() * self.vectors(targets)


class VocabularyHead(Head):
    """Base class of the heads that compute one score (logit) per id of a vocabulary; built from the embedding table of
    the ids."""

    tied = True

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self._table = (embedding,)  # in a tuple, so that the table is a parameter (and saved) only in its embedder

    @property
    def table(self) -> Float[Tensor, "v d"]:
        return self._table[0].weight


class Unembedding(VocabularyHead):
    """Scores from a separate matrix that is not tied to the embedding table; `bias` adds a learned number per id."""

    tied = False

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False):
        super().__init__(embedding)
        self.linear = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Tied(VocabularyHead):
    """Scores from the embedding table (Press & Wolf 2017, arXiv:1608.05859), without additional parameters. `scaled`
    first divides the vectors by the square root of their width, as in T5."""

    def __init__(self, embedding: nn.Embedding, *, scaled: bool = False):
        super().__init__(embedding)
        self.scale = embedding.embedding_dim**-0.5 if scaled else 1.0

    def weights(self) -> int:
        return self.table.numel()

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(x if self.scale == 1 else x * self.scale, self.table)


class MaskedHead(VocabularyHead):
    """BERT's head for masked language modelling: a layer (matrix, GELU, normalisation), then the embedding table and a
    bias per id."""

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
    """Maps the vector of each supervised slot linearly to `outputs` scores (categories) or numbers. `bounds` are the
    lowest and the highest value of each output, (v,) each; a tanh keeps the numbers between them."""

    def __init__(self, width: int, outputs: int, bounds: tuple[Float[Tensor, "v"], Float[Tensor, "v"]] | None = None):
        super().__init__()
        self.linear, self.bounded = Linear(width, outputs), bounds is not None
        if bounds:
            low, high = bounds
            self.register_buffer("centre", (low + high) / 2, persistent=False)
            self.register_buffer("reach", (high - low) / 2, persistent=False)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        outputs = self.linear(x)
        return self.centre + self.reach * outputs.tanh() if self.bounded else outputs


class Pooling(nn.Module):
    """Base class of the poolings: maps the vectors of t tokens to one vector for each of s samples. `groups` holds the
    number (from 0) of each token's sample."""

    def __init__(self, width: int):
        super().__init__()

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        """Returns the pooled slots, (t), as row * n + column, and the number (from 0) of each slot's sample, (t)."""
        sample = planned.tokens.sample.flatten()
        slots = ((sample > 0) & (planned.tokens.input.flatten() > 0)).nonzero()[:, 0]
        return slots, sample[slots] - 1

    def forward(self, x: Float[Tensor, "t d"], groups: Int[Tensor, "t"], samples: int) -> Float[Tensor, "s d"]:
        raise NotImplementedError


def core_slots(planned: SetPlan, pooling: str, required: int) -> Int[Tensor, "s o"]:
    """Returns the slots of the core tokens of each sample. Raises ValueError if there are none; the message names the
    `pooling` and the `required` number of core tokens."""
    if planned.own is None or not planned.own.shape[1]:
        raise ValueError(
            f"pooling: {pooling} needs core tokens, but the model has none; set model.core_tokens: {required}"
        )
    return planned.own


class ClassToken(Pooling):
    """The first core token, as in BERT and ViT. Raises ValueError unless `model.core_tokens` is 1 or more."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        slots = core_slots(planned, "class_token", 1)
        return slots[:, 0], torch.arange(len(slots))

    def forward(self, x, groups, samples):
        return x


class MeanPooling(Pooling):
    """The mean over all tokens of a sample except the core tokens; `norm` normalises the mean."""

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
        slots = core_slots(planned, "core_tokens", 2)
        return slots.flatten(), torch.arange(len(slots)).repeat_interleave(slots.shape[1])


class AttentionPooling(Pooling):
    """A weighted mean over all tokens of a sample except the core tokens. The weights are the softmax of the tokens'
    scaled dot products with a learned query."""

    def __init__(self, width: int):
        super().__init__(width)
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x, groups, samples):
        # not a matrix product, which autocast would compute in half precision
        scores = (x.float() * self.query.float()).sum(1) / x.shape[1] ** 0.5
        maxima = torch.full((samples,), -torch.inf, device=x.device).scatter_reduce(0, groups, scores, "amax")
        weights = (scores - maxima.detach()[groups]).exp()
        total = torch.zeros(samples, device=x.device).index_add(0, groups, weights)
        return x.new_zeros(samples, x.shape[1]).index_add(0, groups, (weights / total[groups])[:, None].to(x.dtype) * x)


def slots_read(pooling: Callable[..., Pooling], planned: SetPlan) -> tuple[Tensor, Tensor]:
    """Returns `Pooling.slots` of a pooling class, or of the class of a configured part (its `target`)."""
    return getattr(pooling, "target", pooling).slots(planned)


class PooledLinear(Head):
    """Pools slots to one vector per sample and maps it linearly to `outputs` scores (classes) or numbers
    (regression)."""

    def __init__(self, pooling: Pooling, width: int, outputs: int):
        super().__init__()
        self.pooling, self.linear = pooling, Linear(width, outputs)

    def vectors(self, targets: Targets) -> int:
        return len(targets.values)

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"]:
        return self.pooling(x, targets.groups, len(targets.values))

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s v"]:
        return self.linear(self.pooled(x, targets))
