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
    """Base class. A head maps the core's output vectors at the t supervised slots of a task, (t, d), to the output of
    the task. The output has one row per slot, or one row per target if the head pools slots. Only heads that pool slots
    use `targets`."""

    quantizes: ClassVar[bool] = False
    """Whether the head encodes tokens as integer codes and decodes these codes (`models/reconstruction.py`)."""
    tied: ClassVar[bool] = False
    """Whether the head computes scores with the embedding table of an input. The table is then the attribute
    `table`."""
    inner_inputs: ClassVar[tuple[str, ...]] = ()
    """The names of linear layers of the head that are initialised and trained like the matrices of the model's inputs
    (the role `input` of `models/initialization.py`). A transformer inside the head reads the outputs of these
    layers."""

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must turn vectors into an output: forward(self, x, targets)")

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"] | None:
        """Returns one vector per target, (s, d), the input of the last linear layer; None if the head does not pool."""
        return None

    def weights(self) -> int:
        """Returns the number of weights by which each vector is multiplied: all parameters with two or more axes."""
        return sum(parameter.numel() for parameter in self.parameters() if parameter.dim() > 1)

    def vectors(self, targets: Targets) -> int:
        """Returns the number of vectors that the head multiplies by its matrices: one per supervised slot."""
        return len(targets.values) if targets.slots is None else len(targets.slots)

    def flops(self, targets: Targets) -> int:
        """Returns the number of floating-point operations of the head for one micro-batch, forward and backward: 6 for
        each weight and vector."""
        return 6 * self.weights() * self.vectors(targets)


class VocabularyHead(Head):
    """Base class of the heads that compute one score (logit) per id of a vocabulary. `embedding` is the embedding table
    of these ids."""

    tied = True

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        self._table = (embedding,)  # in a tuple, so that the table is a parameter (and saved) only in its embedder

    @property
    def table(self) -> Float[Tensor, "v d"]:
        return self._table[0].weight


class Unembedding(VocabularyHead):
    """Computes scores with a separate matrix that is not tied to the embedding table. `bias` adds a learned number to
    the score of each id."""

    tied = False

    def __init__(self, embedding: nn.Embedding, *, bias: bool = False):
        super().__init__(embedding)
        self.linear = Linear(embedding.embedding_dim, embedding.num_embeddings, bias=bias)

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return self.linear(x)


class Tied(VocabularyHead):
    """Computes scores with the embedding table (Press & Wolf 2017, arXiv:1608.05859); there are no additional
    parameters. `scaled` divides the vectors by the square root of their width before the product. T5 does this."""

    def __init__(self, embedding: nn.Embedding, *, scaled: bool = False):
        super().__init__(embedding)
        self.scale = embedding.embedding_dim**-0.5 if scaled else 1.0

    def weights(self) -> int:
        return self.table.numel()

    def forward(self, x: Float[Tensor, "t d"], targets: Targets | None = None) -> Float[Tensor, "t v"]:
        return linear(x if self.scale == 1 else x * self.scale, self.table)


class MaskedHead(VocabularyHead):
    """BERT's head for masked language modelling. It applies a matrix, a GELU and the normalisation `norm`; then it
    computes scores with the embedding table and adds a learned bias for each id."""

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
    """Maps the vector of each supervised slot linearly to `outputs` scores (of categories) or numbers. `bounds` is a
    pair of tensors, (v,) each: the lowest and the highest value of each output. A tanh keeps each output between these
    values. None: the outputs are not bounded."""

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
    """Base class of the poolings. A pooling maps the vectors of t tokens to one vector for each of s samples. `groups`
    has one number per token: the number of its sample, from 0."""

    def __init__(self, width: int):
        super().__init__()

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        """Returns (slots, groups): the slots to pool as row * n + column, (t), and the number of the sample of each
        slot, from 0, (t). By default these are all slots except core tokens and padding."""
        sample = planned.tokens.sample.flatten()
        slots = ((sample > 0) & (planned.tokens.input.flatten() > 0)).nonzero()[:, 0]
        return slots, sample[slots] - 1

    def forward(self, x: Float[Tensor, "t d"], groups: Int[Tensor, "t"], samples: int) -> Float[Tensor, "s d"]:
        raise NotImplementedError


def core_slots(planned: SetPlan, pooling: str, required: int) -> Int[Tensor, "s o"]:
    """Returns the slots of the core tokens of each sample. Raises ValueError if the model has no core tokens. `pooling`
    (a name) and `required` (a number of core tokens) are only used in the message."""
    if planned.core_slots is None or not planned.core_slots.shape[1]:
        raise ValueError(
            f"pooling: {pooling} needs core tokens, but the model has none; set model.core_tokens: {required}"
        )
    return planned.core_slots


class ClassToken(Pooling):
    """Takes the vector of the first core token of each sample (BERT and ViT do this). Raises ValueError if
    `model.core_tokens` is 0."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        slots = core_slots(planned, "class_token", 1)
        return slots[:, 0], torch.arange(len(slots))

    def forward(self, x, groups, samples):
        return x


class MeanPooling(Pooling):
    """Takes the mean over all tokens of a sample except the core tokens. `norm` normalises the mean; null: no
    normalisation."""

    def __init__(self, width: int, *, norm: Callable[[int], Norm] | None = None):
        super().__init__(width)
        self.norm = norm(width) if norm else nn.Identity()

    def forward(self, x, groups, samples):
        sums = x.new_zeros(samples, x.shape[1]).index_add_(0, groups, x)
        counts = x.new_zeros(samples).index_add_(0, groups, x.new_ones(len(x)))
        return self.norm(sums / counts.clamp(min=1)[:, None])


class CoreTokens(MeanPooling):
    """Takes the mean of all core tokens of a sample (AST and the distilled DeiT do this). `norm` normalises the mean;
    null: no normalisation. Raises ValueError if `model.core_tokens` is 0."""

    @staticmethod
    def slots(planned: SetPlan) -> tuple[Tensor, Tensor]:
        slots = core_slots(planned, "core_tokens", 2)
        return slots.flatten(), torch.arange(len(slots)).repeat_interleave(slots.shape[1])


class AttentionPooling(Pooling):
    """Takes a weighted mean over all tokens of a sample except the core tokens. The weights are the softmax of scores;
    the score of a token is its scaled dot product with a learned query."""

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
    """Returns (slots, groups), the result of `Pooling.slots`. `pooling` is a pooling class, or a configured part whose
    attribute `target` is the class."""
    return getattr(pooling, "target", pooling).slots(planned)


class PooledLinear(Head):
    """Pools the supervised slots to one vector per sample and maps this vector linearly to `outputs` scores
    (classification) or numbers (regression)."""

    def __init__(self, pooling: Pooling, width: int, outputs: int):
        super().__init__()
        self.pooling, self.linear = pooling, Linear(width, outputs)

    def vectors(self, targets: Targets) -> int:
        return len(targets.values)

    def pooled(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s d"]:
        return self.pooling(x, targets.groups, len(targets.values))

    def forward(self, x: Float[Tensor, "t d"], targets: Targets) -> Float[Tensor, "s v"]:
        return self.linear(self.pooled(x, targets))
