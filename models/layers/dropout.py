"""Where values are dropped while training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Where values are dropped while training: embeddings and what layers add, as in the 2017 paper; attention weights,
    as in GPT-2; whole branches (stochastic depth). Probabilities, at least 0 and below 1."""

    embedding: float = 0.0
    """On the sum of token, type and position embeddings."""
    attention: float = 0.0
    """On the attention weights."""
    residual: float = 0.0
    """On the output of each attention and feed-forward layer, before it is added."""
    depth: float = 0.0
    """Stochastic depth: rows skip a branch this often in the last layer, linearly less before (arXiv:1603.09382)."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value < 1:
                raise ValueError(f"dropout.{name} is {value}; it must be at least 0 and below 1")

    @classmethod
    def from_number(cls, probability: float) -> Dropout:
        """`dropout: 0.1` in YAML: the same at the three points of GPT-2, no stochastic depth."""
        return cls(embedding=probability, attention=probability, residual=probability)
