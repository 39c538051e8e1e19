"""Metrics of the order in which the scores of a class put the samples: the area under the ROC curve (AUROC) and average
precision. Both equal scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

Scores = Float[np.ndarray, "n"]
Positive = Bool[np.ndarray, "n"]


def auroc(scores: Scores, positive: Positive) -> float:
    """Returns the probability that a random positive sample has a higher score than a random negative one; equal scores
    count one half (Mann & Whitney 1947). NaN without positive or without negative samples.

        auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))    # 0.75
    """
    count = int(positive.sum())
    if count in (0, len(positive)):
        return float("nan")
    _, inverse, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = sizes.cumsum() - (sizes - 1) / 2  # the mean rank of equal scores, from 1
    above = ranks[inverse][positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


def average_precision(scores: Scores, positive: Positive) -> float:
    """Returns the mean, over the positive samples, of the precision among all samples with at least the score of the
    sample. NaN without positive samples.

        average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))    # 0.8333
    """
    count = int(positive.sum())
    if not count:
        return float("nan")
    _, inverse, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(inverse, weights=positive)
    return float((hits.cumsum() / sizes.cumsum() * hits).sum() / count)


def of_class(
    output: Float[Tensor, "n v"],
    values: Tensor,
    number: int,
    several: bool,
    measure: Callable[[Scores, Positive], float],
) -> float:
    """Returns a metric of one class: `measure` of its scores. `values` are class indices (n), or with `several` zeros
    and ones (n, v); negative values are missing."""
    known = (values if values.dim() == 1 else values[:, 0]) >= 0
    scores = output[known] if several else output[known].softmax(-1)  # in float32, as the answers
    positive = values[known, number] > 0.5 if several else values[known] == number
    return measure(scores[:, number].double().numpy(), positive.numpy())


def macro(
    output: Float[Tensor, "n v"], values: Tensor, several: bool, measure: Callable[[Scores, Positive], float]
) -> float:
    """Returns the mean of a metric over the classes for which it is defined; NaN if there are none."""
    found = np.array([of_class(output, values, number, several, measure) for number in range(output.shape[1])])
    return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")
