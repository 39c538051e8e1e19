"""Baselines that predict the next value of a function from the preceding examples: zero, least squares, ridge, lasso,
nearest neighbours, a decision tree, and the kernel of a network.

The parameters of a baseline are the examples of n functions, x (n, k, d) and y (n, k), and one query point for each
function (n, d). A baseline returns the predicted values at the query points (n,)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Points, Values, Query = Float[Tensor, "n k d"], Float[Tensor, "n k"], Float[Tensor, "n d"]
Predicted = Float[Tensor, "n"]
Baseline = Callable[[Points, Values, Query], Predicted]

WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""The penalty weights that are tried for ridge and lasso."""


def zero(x: Points, y: Values, query: Query) -> Predicted:
    """Returns the prediction 0 for every function."""
    return torch.zeros(len(query), dtype=query.dtype)


def least_squares(x: Points, y: Values, query: Query) -> Predicted:
    """Returns the predictions of the linear functions with the smallest squared error. If several linear functions have
    this error (with few examples), the function with the smallest norm is used. Without examples the prediction is
    0."""
    if not x.shape[1]:
        return zero(x, y, query)
    return ((torch.linalg.pinv(x) @ y[..., None])[..., 0] * query).sum(-1)


def ridge(x: Points, y: Values, query: Query, weight: float = 1.0) -> Predicted:
    """Returns the predictions of the linear functions that minimize the squared error plus `weight` times the squared
    norm of the weights."""
    return (ridge_weights(x, y, weight) * query).sum(-1)


def ridge_weights(x: Points, y: Values, weight: float) -> Float[Tensor, "n d"]:
    """Returns the weights of the linear functions of `ridge`. If `weight` is 0, returns the weights of
    `least_squares`."""
    if not weight:
        return (torch.linalg.pinv(x) @ y[..., None])[..., 0] if x.shape[1] else x.new_zeros(len(x), x.shape[2])
    square = x.mT @ x + weight * torch.eye(x.shape[2], dtype=x.dtype)
    return torch.linalg.solve(square, (x.mT @ y[..., None]))[..., 0]


def lasso(x: Points, y: Values, query: Query, weight: float = 0.1) -> Predicted:
    """Returns the predictions of the linear functions that minimize the mean squared error plus 2 * `weight` times the
    L1 norm of the weights. If `weight` is 0 or there are no examples, returns the predictions of `least_squares`."""
    from sklearn.linear_model import Lasso

    if not weight or not x.shape[1]:
        return least_squares(x, y, query)
    fitted = Lasso(alpha=weight, fit_intercept=False, max_iter=100_000)
    predictions = [fitted.fit(a, b).coef_ @ q for a, b, q in zip(x.numpy(), y.numpy(), query.numpy())]
    return torch.tensor(np.array(predictions))


def neighbours(x: Points, y: Values, query: Query, count: int = 3) -> Predicted:
    """Returns the mean values of the `count` examples nearest to the query point, or of all examples if there are
    fewer. Without examples the prediction is 0."""
    if not x.shape[1]:
        return zero(x, y, query)
    near = (x - query[:, None]).square().sum(-1).topk(min(count, x.shape[1]), largest=False).indices
    return y.gather(1, near).mean(1)


def greedy_tree(x: Points, y: Values, query: Query, depth: int | None = None) -> Predicted:
    """Returns the predictions of decision trees (scikit-learn) of at most the depth `depth` (None: not limited).
    Without examples the prediction is 0."""
    from sklearn.tree import DecisionTreeRegressor

    if not x.shape[1]:
        return zero(x, y, query)
    fitted = DecisionTreeRegressor(max_depth=depth, random_state=0)
    predictions = [fitted.fit(a, b).predict(q[None])[0] for a, b, q in zip(x.numpy(), y.numpy(), query.numpy())]
    return torch.tensor(np.array(predictions))


def network_kernel(x: Points, y: Values, query: Query, noise: float = 1e-6) -> Predicted:
    """Returns the means of a Gaussian process whose covariance is that of random networks with one layer of ReLUs and a
    linear output (arc-cosine kernel, Cho & Saul 2009). Among all predictions that are linear in the values, these have
    the smallest mean squared error. `noise` times the mean variance is added to the diagonal of the covariance. Without
    examples the prediction is 0."""
    if not x.shape[1]:
        return zero(x, y, query)
    covariance, cross = relu_covariance(x, x), relu_covariance(x, query[:, None])[..., 0]
    scale = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    covariance = covariance + noise * scale * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(covariance, y[..., None])[..., 0]
    return (weights * cross).sum(-1)


def relu_covariance(a: Float[Tensor, "n k d"], b: Float[Tensor, "n m d"]) -> Float[Tensor, "n k m"]:
    """Returns the covariance of the values of `Network` functions (`functions.py`) at the points `a` with the values at
    the points `b`."""
    sizes = a.norm(dim=-1)[:, :, None] * b.norm(dim=-1)[:, None]
    cosines = (a @ b.mT / sizes.clamp_min(1e-12)).clamp(-1, 1)
    angles = cosines.acos()
    return sizes * (angles.sin() + (math.pi - angles) * cosines) / math.pi


BASELINES: dict[str, list[Baseline]] = {
    "zero": [zero],
    "least squares": [least_squares],
    "ridge": [partial(ridge, weight=weight) for weight in WEIGHTS],
    "lasso": [partial(lasso, weight=weight) for weight in WEIGHTS],
    "nearest neighbours": [partial(neighbours, count=count) for count in (1, 2, 3, 5, 8)],
    "greedy tree": [partial(greedy_tree, depth=depth) for depth in (1, 2, 3, None)],
    "network kernel": [partial(network_kernel, noise=noise) for noise in (1e-6, 0.001, 0.01, 0.03, 0.1, 0.3)],
}
"""The baselines by name. Each baseline is a list of functions with the settings that are tried."""


def errors_of(settings: Sequence[Baseline], x: Points, y: Values, tuned: int) -> Float[Tensor, "m k"]:
    """Returns the squared errors after 0, 1, 2, ... examples (columns) for all functions except the first `tuned`
    (rows). For each number of examples, the setting of the baseline with the smallest error on the first `tuned`
    functions is used."""

    def errors(setting: Baseline, part: slice, k: int) -> Float[Tensor, "m"]:
        return (setting(x[part, :k], y[part, :k], x[part, k]) - y[part, k]).square()

    columns = []
    for k in range(x.shape[1]):
        best = min(settings, key=lambda setting, k=k: float(errors(setting, slice(tuned), k).mean()))
        columns.append(errors(best, slice(tuned, None), k))
    return torch.stack(columns, dim=1)
