"""Pairs of x and f(x) with a different function f in every sample. To predict the next f(x), a model must learn f from
the preceding pairs, which is a regression (Garg et al. 2022, arXiv:2208.01066). Nothing is downloaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from ....data.generated import Made, MadeDataset
from ..functions import NUMBERS, Function, Linear


class Functions(Made):
    """Samples with a different random function each. The points are normally distributed and multiplied by `scale`. The
    values of the function at these points are multiplied by `weights`, then noise is added."""

    def __init__(self, split: str, count: int, options: InContext):
        super().__init__(split, count, "function")
        self.options = options

    def caches(self, number: int) -> bool:
        return False

    def parts(self, number: int) -> Mapping[str, Callable[[], Any]]:
        options, random = self.options, self.random(number, 15)
        x = options.scale * random.normal(size=(options.examples, options.dimension))

        def values() -> Float32[np.ndarray, "k 1"]:
            y = options.kind.drawn(options.dimension, random)(x) * options.weights
            y += options.noise * random.normal(size=len(x))
            return y[:, None].astype(np.float32)

        return {"x": lambda: x.astype(np.float32), "y": values}


class InContext(MadeDataset):
    """Columns: `x` with shape (examples, dimension) and `y` with shape (examples, 1). Every sample has a different
    random function. `dimension` is the number of numbers in a point, `examples` the number of points in a sample.
    `function` is the kind of function: `linear`, `{use: sparse, nonzero: 3}`, `{use: network, hidden: 20}` or `{use:
    tree, depth: 3}`. `noise` is the standard deviation of the noise that is added to the values. `scale` multiplies the
    points, and `weights` multiplies the values before noise is added; values other than those of the training evaluate
    a model outside its training distribution. `samples` is the number of samples per epoch."""

    columns = ("x", "y")

    def __init__(
        self, *, function: Callable[[], Function] = Linear, dimension: int = 5, examples: int = 16, noise: float = 0.0,
        scale: float = 1.0, weights: float = 1.0, samples: int = 1_000_000,
    ):  # fmt: skip
        if min(dimension, examples) < 1:
            raise ValueError(f"dimension and examples must be at least 1, not {dimension} and {examples}")
        if dimension * examples > NUMBERS:
            raise ValueError(f"dimension * examples must be at most {NUMBERS:,}, not {dimension:,} * {examples:,}")
        if not noise >= 0:
            raise ValueError(f"noise must be at least 0, not {noise}")
        if not (0 < scale < math.inf and 0 < weights < math.inf and samples >= 1):
            values = f"{scale:g}, {weights:g} and {samples}"
            raise ValueError(f"scale and weights must be positive and samples at least 1; they are {values}")
        self.kind, self.dimension, self.examples, self.noise = function(), dimension, examples, noise
        self.scale, self.weights, self.samples = scale, weights, samples
        self.kind.drawn(dimension, np.random.default_rng(0))  # raises ValueError if the dimension is not possible

    @property
    def options(self) -> dict[str, object]:
        """The options of this data set, which are stored with a run."""
        plain = {name: getattr(self, name) for name in ("dimension", "examples", "noise", "scale", "weights")}
        return {"function": [type(self.kind).__name__, vars(self.kind)], "samples": self.samples} | plain

    def make(self, split: str, count: int) -> Functions:
        return Functions(split, count, self)
