"""What else predicts the next value of a function from the examples before it: least squares, ridge, lasso, nearest
neighbours, a decision tree, the kernel of a network.

Each rival takes n functions at once, x (n, k, d) and y (n, k), and gives its predictions (n,) for the points (n, d)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Points, Values, Asked = Float[Tensor, "n k d"], Float[Tensor, "n k"], Float[Tensor, "n d"]
Predicted = Float[Tensor, "n"]
Rival = Callable[[Points, Values, Asked], Predicted]

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Weights that are tried for ridge and lasso."""


def nothing(x: Points, y: Values, asked: Asked) -> Predicted:
    """Zero, whatever the examples."""
    return torch.zeros(len(asked), dtype=asked.dtype)


def least_squares(x: Points, y: Values, asked: Asked) -> Predicted:
    """The linear function of the smallest squared error; of those, with few examples, the one of the smallest norm."""
    if not x.shape[1]:
        return nothing(x, y, asked)
    return ((torch.linalg.pinv(x) @ y[..., None])[..., 0] * asked).sum(-1)


def ridge(x: Points, y: Values, asked: Asked, weight: float = 1.0) -> Predicted:
    """The linear function of the smallest squared error plus `weight` times its squared norm."""
    return (ridge_weights(x, y, weight) * asked).sum(-1)


def ridge_weights(x: Points, y: Values, weight: float) -> Float[Tensor, "n d"]:
    """The weights of `ridge`; of `least_squares` for 0."""
    if not weight:
        return (torch.linalg.pinv(x) @ y[..., None])[..., 0] if x.shape[1] else x.new_zeros(len(x), x.shape[2])
    square = x.mT @ x + weight * torch.eye(x.shape[2], dtype=x.dtype)
    return torch.linalg.solve(square, (x.mT @ y[..., None]))[..., 0]


def lasso(x: Points, y: Values, asked: Asked, weight: float = 0.1) -> Predicted:
    """The linear function of the smallest mean squared error plus twice `weight` times its absolute sum."""
    from sklearn.linear_model import Lasso

    if not weight or not x.shape[1]:
        return least_squares(x, y, asked)
    fitted = Lasso(alpha=weight, fit_intercept=False, max_iter=100_000)
    found = [fitted.fit(a, b).coef_ @ q for a, b, q in zip(x.numpy(), y.numpy(), asked.numpy())]
    return torch.tensor(np.array(found))


def neighbours(x: Points, y: Values, asked: Asked, count: int = 3) -> Predicted:
    """The mean over the `count` nearest examples, or all there are."""
    if not x.shape[1]:
        return nothing(x, y, asked)
    near = (x - asked[:, None]).square().sum(-1).topk(min(count, x.shape[1]), largest=False).indices
    return y.gather(1, near).mean(1)


def greedy_tree(x: Points, y: Values, asked: Asked, depth: int | None = None) -> Predicted:
    """A decision tree, grown greedily."""
    from sklearn.tree import DecisionTreeRegressor

    if not x.shape[1]:
        return nothing(x, y, asked)
    fitted = DecisionTreeRegressor(max_depth=depth, random_state=0)
    found = [fitted.fit(a, b).predict(q[None])[0] for a, b, q in zip(x.numpy(), y.numpy(), asked.numpy())]
    return torch.tensor(np.array(found))


def network_kernel(x: Points, y: Values, asked: Asked, noise: float = 1e-6) -> Predicted:
    """The mean of a Gaussian process whose covariance is that of random networks with one layer of ReLUs and a product
    (the arc-cosine kernel, Cho & Saul 2009). Of all predictions that are linear in the values it has the smallest mean
    squared error. `noise`: the share of the covariance that is added to its diagonal."""
    if not x.shape[1]:
        return nothing(x, y, asked)
    own, other = relu_covariance(x, x), relu_covariance(x, asked[:, None])[..., 0]
    scale = own.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    weights = torch.linalg.solve(own + noise * scale * torch.eye(x.shape[1], dtype=x.dtype), y[..., None])[..., 0]
    return (weights * other).sum(-1)


def relu_covariance(a: Float[Tensor, "n k d"], b: Float[Tensor, "n m d"]) -> Float[Tensor, "n k m"]:
    """The covariance of the values of `Network` functions (`projects/in_context/functions.py`) at points a and b."""
    sizes = a.norm(dim=-1)[:, :, None] * b.norm(dim=-1)[:, None]
    cosines = (a @ b.mT / sizes.clamp_min(1e-12)).clamp(-1, 1)
    angles = cosines.acos()
    return sizes * (angles.sin() + (math.pi - angles) * cosines) / math.pi


RIVALS: dict[str, list[Rival]] = {
    "zero": [nothing],
    "least squares": [least_squares],
    "ridge": [partial(ridge, weight=weight) for weight in WEIGHTS],
    "lasso": [partial(lasso, weight=weight) for weight in WEIGHTS],
    "nearest neighbours": [partial(neighbours, count=count) for count in (1, 2, 3, 5, 8)],
    "greedy tree": [partial(greedy_tree, depth=depth) for depth in (1, 2, 3, None)],
    "network kernel": [partial(network_kernel, noise=noise) for noise in (1e-6, 0.001, 0.01, 0.03, 0.1, 0.3)],
}
"""The rivals by name, each with the settings that are tried."""


def errors_of(rival: Sequence[Rival], x: Points, y: Values, tuned: int) -> Float[Tensor, "m k"]:
    """The squared errors after 0, 1, 2, ... examples of each function but the first `tuned`. For each number of
    examples the setting is used that is best on those."""

    def errors(setting: Rival, part: slice, k: int) -> Float[Tensor, "m"]:
        return (setting(x[part, :k], y[part, :k], x[part, k]) - y[part, k]).square()

    found = []
    for k in range(x.shape[1]):
        best = min(rival, key=lambda setting, k=k: float(errors(setting, slice(tuned), k).mean()))
        found.append(errors(best, slice(tuned, None), k))
    return torch.stack(found, dim=1)
