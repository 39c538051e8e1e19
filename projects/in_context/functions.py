"""Random functions for the data set `in_context`. A model must learn the function from the examples in its context."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

NUMBERS = 2**24
"""The maximum number of values in a sample, and the maximum number of weights of a network."""
Drawn = Callable[[Float64[np.ndarray, "k d"]], Float64[np.ndarray, "k"]]
"""A drawn function. It maps points with shape (k, d) to values with shape (k,)."""


class Function(ABC):
    """Base class of the kinds of functions. The coordinates of the points are normally distributed."""

    baselines: ClassVar[tuple[str, ...]] = ("ridge", "nearest neighbours")
    """The names of the methods with which a model is compared (`rivals.BASELINES`)."""
    is_linear: ClassVar[bool] = False
    """Whether the values are normally distributed weights times the point, so that the vectors of the layers can be
    searched for the weights."""

    @abstractmethod
    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        """Draws a random function of points with `dimension` coordinates. Raises ValueError if the kind of function
        does not allow this dimension."""


class Linear(Function):
    """The dot product of the point with normally distributed weights."""

    baselines = ("least squares", "ridge", "nearest neighbours")
    is_linear = True

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        weights = random.normal(size=dimension)
        return lambda x: x @ weights


class Sparse(Function):
    """The dot product of the point with weights. `nonzero` of the weights are normally distributed, the other weights
    are 0."""

    baselines = ("least squares", "ridge", "lasso")

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
    """A network with one layer of `hidden` ReLUs and a linear output. The weights are normally distributed. The output
    is scaled such that its mean square equals that of `linear`."""

    baselines = ("ridge", "nearest neighbours", "network kernel")

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
    """A binary decision tree of depth `depth`, from 1 to 16. Each inner node tests whether one coordinate of the point
    is positive. The values of the leaves are normally distributed."""

    baselines = ("ridge", "nearest neighbours", "greedy tree")

    def __init__(self, *, depth: int = 3):
        if not 1 <= depth <= 16:
            raise ValueError(f"depth must be from 1 to 16, not {depth}")
        self.depth = depth

    def drawn(self, dimension: int, random: np.random.Generator) -> Drawn:
        first = 2**self.depth  # nodes are numbered by level: the root is 1, the first leaf is `first`
        coordinates, leaves = random.integers(dimension, size=first), random.normal(size=first)

        def value(x: Float64[np.ndarray, "k d"]) -> Float64[np.ndarray, "k"]:
            node = np.ones(len(x), dtype=int)
            for _ in range(self.depth):
                node = 2 * node + (x[np.arange(len(x)), coordinates[node]] > 0)
            return leaves[node - first]

        return value
