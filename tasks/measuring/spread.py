"""How much of what is true a generator covers: recall, coverage and in-class variance of features.

Features are vectors that another model computes of items, one a row. Two sets are compared with as many items each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOURS = 5
"""The k of the k-th nearest neighbour, whose distance is the radius of an item's ball."""
ROWS = 512
"""Of how many items the distances to all others are in memory at a time."""

Features = Float[Tensor, "n d"]


def recall(true: Features, made: Features, k: int = NEIGHBOURS) -> float:
    """The share of true items inside the ball of at least one generated item, which reaches to the k-th nearest of the
    other generated items (Kynkaanniemi et al. 2019, arXiv:1904.06991): 0 where the sets are far apart, and low for a
    generator that makes only some kinds of items. Raises ValueError for sets of k items or fewer."""
    radii = radii_of(made, k)
    return sum(int((each <= radii).any(1).sum()) for each in distances(true, made)) / len(true)


def coverage(true: Features, made: Features, k: int = NEIGHBOURS) -> float:
    """The share of true items whose ball, which reaches to the k-th nearest of the other true items, holds a generated
    item (Naeem et al. 2020, arXiv:2002.09797). Of two sets of one distribution about 1 - 2 ** -k: 0.97. Raises
    ValueError for sets of k items or fewer."""
    radii = radii_of(true, k)
    nearest = torch.cat([each.amin(1) for each in distances(true, made)])
    return int((nearest <= radii).sum()) / len(true)


def radii_of(features: Features, k: int) -> Float[Tensor, "n"]:
    """The distance of each item to the k-th nearest of the others. Raises ValueError for k items or fewer."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} items have no {k} others each")
    # an item is itself among the k + 1 nearest, at distance 0
    return torch.cat([each.topk(k + 1, largest=False).values[:, -1] for each in distances(features, features)])


def distances(rows: Features, columns: Features) -> Iterator[Tensor]:
    """The Euclidean distances of all pairs, `ROWS` rows at a time; exactly 0 for equal vectors."""
    for some in rows.split(ROWS):
        yield torch.cdist(some, columns, compute_mode="donot_use_mm_for_euclid_dist")


def class_variance(features: Features, classes: Sequence[str]) -> float | None:
    """The mean over all classes with at least two items of the trace of the covariance of their features: how different
    the items of a class are. None if no class has two."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        groups.setdefault(name, []).append(number)
    found = [features[rows].double().var(0).sum() for rows in groups.values() if len(rows) > 1]
    return float(torch.stack(found).mean()) if found else None


def halves(features: Features) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
    """Every second item, and the others; as many of both."""
    return features[: len(features) // 2 * 2 : 2], features[1::2]
