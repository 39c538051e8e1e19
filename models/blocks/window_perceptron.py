"""The neural language model of Bengio et al. 2003 as a block: the vectors of the last words, concatenated, through one
hidden layer.

    model: {attention: causal & same_sample, block: {use: window_perceptron, words: 3}}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..attention.graph import Causal, Graph, SameSample, Window
from ..cache import RowState
from ..contract import Problems
from ..layers.linear import Linear
from ..layers.norms import LayerNorm, Norm, PostNorm, PreNorm
from ..tokens import PADDING
from ..transformer import AttentionContext, BaseBlock, Dropout, Role


@dataclass(frozen=True, kw_only=True)
class WindowPerceptronOptions:
    """The options of the block `window_perceptron`."""

    words: int = 3
    """The number of tokens that a token reads: itself and the tokens before it."""
    hidden: int | None = None
    """The number of hidden channels; null: twice the width."""
    norm: Callable[[int], Norm] = LayerNorm
    """The normalisation of the vectors before (or after) the branch."""
    residual: Callable[..., PreNorm | PostNorm] = PreNorm
    """The position of the normalisation: `pre_norm` or `post_norm`."""


class WindowPerceptron(BaseBlock):
    """A perceptron on the vectors of the last `words` tokens of a sample, concatenated; zeros stand for tokens before
    the start of the sample. Raises ValueError if `words` is below 1."""

    Options = WindowPerceptronOptions

    def __init__(
        self, width: int, heads: int, dropout: Dropout = Dropout(), skip: float = 0.0, crosses: bool = False, *,
        graph: Graph | None = None, options: WindowPerceptronOptions = WindowPerceptronOptions(),
    ):  # fmt: skip
        super().__init__()
        if options.words < 1:
            raise ValueError(f"words must be at least 1, not {options.words}")
        if crosses:
            raise ValueError("window_perceptron reads one set, so it cannot be the decoder of an encoder")
        hidden = 2 * width if options.hidden is None else options.hidden
        self.words, self.width = options.words, width
        self.up, self.down = Linear(width * self.words, hidden), Linear(hidden, width)
        self.add = options.residual(width, options.norm, dropout.residual, skip)

    def problems(self, graph: Graph, role: Role) -> Problems:
        needed, parts = {Causal(), SameSample()}, {*graph.parts()}
        windows = [part for part in parts - needed if isinstance(part, Window) and part.axis == 0]
        if not needed <= parts or parts - needed - {*windows} or any(part.size < self.words for part in windows):
            reason = f"the block window_perceptron reads the last {self.words} tokens of the sample"
            yield ("attention",), f"must be causal & same_sample, because {reason}"

    def empty_state(self, rows: int, capacity: int, *, dtype: torch.dtype, device: torch.device | str) -> RowState:
        vectors = torch.zeros(rows, self.words - 1, self.width, dtype=self.up.weight.dtype, device=device)
        return RowState(vectors=vectors, sample=torch.zeros(rows, self.words - 1, dtype=torch.long, device=device))

    def output_norm(self) -> nn.Module | None:
        return None if self.add.normalises_output else self.add.norm

    def forward(
        self, x: Float[Tensor, "b n d"], context: AttentionContext, source: Float[Tensor, "b m d"] | None = None,
        source_context: AttentionContext | None = None,
    ) -> Float[Tensor, "b n d"]:  # fmt: skip
        return self.add(x, self.read, context)

    def read(self, x: Float[Tensor, "b n d"], context: AttentionContext) -> Float[Tensor, "b n d"]:
        """Returns the output of the perceptron for each token."""
        (b, n, _), state, sample = x.shape, context.cache, context.tokens.sample
        sample = sample.expand(b, n)
        before = (self.words - 1, 0)
        vectors = F.pad(x, (0, 0, *before)) if state is None else torch.cat([state.vectors.to(x.dtype), x], dim=1)
        samples = F.pad(sample, before, value=PADDING) if state is None else torch.cat([state.sample, sample], dim=1)
        if state is not None:
            state.set(vectors=vectors[:, n:].to(state.vectors.dtype), sample=samples[:, n:])
        parts = []
        for first in range(self.words):  # the earliest token first
            same = (samples[:, first : first + n] == sample) & (sample != PADDING)
            parts.append(vectors[:, first : first + n] * same[..., None])
        return self.down(self.up(torch.cat(parts, dim=-1)).tanh())
