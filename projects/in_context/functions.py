"""Functions drawn at random, which a model is to learn from examples in its context (`datasets/in_context.py`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

NUMBERS = 2**24
"""The most numbers of a sample, and of the weights of its function."""
Drawn = Callable[[Float64[np.ndarray, "k d"]], Float64[np.ndarray, "k"]]
"""One function: points (k, d) to values (k,)."""


class Function(ABC):
    """Base of the kinds of functions, of points whose coordinates are normal."""

    @abstractmethod
    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        """A function of points of this dimension."""


class Linear(Function):
    """A product with normal weights."""

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        weights = random.normal(size=dimension)
        return lambda x: x @ weights


class Sparse(Function):
    """A product with normal weights, of which all but `nonzero` are 0."""

    def __init__(self, *, nonzero: int = 3):
        if nonzero < 1:
            raise ValueError(f"nonzero must be at least 1, not {nonzero}")
        self.nonzero = nonzero

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        if self.nonzero > dimension:
            raise ValueError(f"nonzero must be at most the dimension, {dimension}, not {self.nonzero}")
        weights = random.normal(size=dimension)
        weights[random.permutation(dimension)[self.nonzero :]] = 0
        return lambda x: x @ weights


class Network(Function):
    """A layer of `hidden` ReLUs and a product, with normal weights, scaled so that values are as large as those of
    `linear`."""

    def __init__(self, *, hidden: int = 20):
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, not {hidden}")
        self.hidden = hidden

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        if dimension * self.hidden > NUMBERS:
            raise ValueError(f"dimension * hidden must be at most {NUMBERS:,}, not {dimension:,} * {self.hidden:,}")
        inner = random.normal(size=(dimension, self.hidden))
        outer = random.normal(size=self.hidden) * (2 / self.hidden) ** 0.5
        return lambda x: np.maximum(x @ inner, 0) @ outer


class Tree(Function):
    """A binary tree of `depth` questions, each whether one coordinate is more than 0, with normal values at its
    leaves."""

    def __init__(self, *, depth: int = 3):
        if not 1 <= depth <= 16:
            raise ValueError(f"depth must be from 1 to 16, not {depth}")
        self.depth = depth

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        first = 2**self.depth  # nodes are numbered by rows from the root, 1; the leaves from here on
        asked, leaves = random.integers(dimension, size=first), random.normal(size=first)

        def value(x: Float64[np.ndarray, "k d"]) -> Float64[np.ndarray, "k"]:
            node = np.ones(len(x), dtype=int)
            for _ in range(self.depth):
                node = 2 * node + (x[np.arange(len(x)), asked[node]] > 0)
            return leaves[node - first]

        return value
