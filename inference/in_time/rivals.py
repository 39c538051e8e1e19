"""What else predicts the next value of a function from the examples before it: least squares, ridge, lasso, nearest
neighbours, a decision tree, a small network fitted to them.

Each rival takes n functions at once, x (n, k, d) and y (n, k), and gives its predictions (n,) for the points (n, d)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
HIDDEN, STEPS, RATE = 32, 300, 0.02
"""Of the network that is fitted: its width, steps of Adam, and their size."""


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


def network(x: Points, y: Values, asked: Asked, decay: float = 0.0) -> Predicted:
    """A layer of HIDDEN ReLUs and a product, fitted to each function's examples by Adam, with weight decay."""
    n, k, d = x.shape
    if not k:
        return nothing(x, y, asked)
    random = torch.Generator().manual_seed(0)
    sizes = ((n, d, HIDDEN), d**-0.5), ((n, 1, HIDDEN), 0.0), ((n, HIDDEN, 1), HIDDEN**-0.5)
    weights = [(torch.randn(size, generator=random, dtype=x.dtype) * std).requires_grad_() for size, std in sizes]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=decay)

    def predicted(points: Tensor) -> Tensor:
        return (torch.relu(points @ weights[0] + weights[1]) @ weights[2])[..., 0]

    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            (predicted(x) - y).square().mean(1).sum().backward()
            optimizer.step()
    return predicted(asked[:, None])[:, 0].detach()


RIVALS: dict[str, list[Rival]] = {
    "zero": [nothing],
    "least squares": [least_squares],
    "ridge": [partial(ridge, weight=weight) for weight in WEIGHTS],
    "lasso": [partial(lasso, weight=weight) for weight in WEIGHTS],
    "nearest neighbours": [partial(neighbours, count=count) for count in (1, 2, 3, 5, 8)],
    "greedy tree": [partial(greedy_tree, depth=depth) for depth in (1, 2, 3, None)],
    "fitted network": [partial(network, decay=decay) for decay in (0.0, 0.1, 1.0)],
}
"""The rivals by name, each with the settings that are tried."""


def errors_of(rival: Iterable[Rival], x: Points, y: Values, tuned: int) -> list[float]:
    """The mean squared error after 0, 1, 2, ... examples, on all functions but the first `tuned`, of the setting that
    is best, for this number of examples, on those."""
    found = []
    for k in range(x.shape[1]):
        every = [(each(x[:, :k], y[:, :k], x[:, k]) - y[:, k]).square() for each in rival]
        best = min(every, key=lambda errors: float(errors[:tuned].mean()))
        found.append(float(best[tuned:].mean()))
    return found
