"""Measures of the diversity of a generator: recall, coverage and in-class variance of features.

Features are vectors that another model computes for items, one item per row. The compared sets have equally many items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOURS = 5
"""The number k. The ball of an item is centred at the item, and its radius is the distance to its k-th nearest
neighbour."""
DISTANCE_ROWS = 512
"""The number of items for which the distances to all other items are in memory at a time."""

Features = Float[Tensor, "n d"]


def recall(true: Features, generated: Features, k: int = NEIGHBOURS) -> float:
    """Returns the share of true items that are inside the ball of at least one generated item. The radius of a ball is
    the distance to the k-th nearest other generated item (Kynkaanniemi et al. 2019, arXiv:1904.06991). The recall is 0
    if the sets are far apart, and low if only some kinds of items are generated. Raises ValueError if there are k
    generated items or fewer."""
    radii = radii_of(generated, k)
    return sum(int((rows <= radii).any(1).sum()) for rows in distances(true, generated)) / len(true)


def coverage(true: Features, generated: Features, k: int = NEIGHBOURS) -> float:
    """Returns the share of true items whose ball contains at least one generated item. The radius of a ball is the
    distance to the k-th nearest other true item (Naeem et al. 2020, arXiv:2002.09797). For two sets of the same
    distribution, the coverage is about 1 - 2 ** -k = 0.97. Raises ValueError if there are k true items or fewer."""
    radii = radii_of(true, k)
    nearest = torch.cat([rows.amin(1) for rows in distances(true, generated)])
    return int((nearest <= radii).sum()) / len(true)


def radii_of(features: Features, k: int) -> Float[Tensor, "n"]:
    """Returns the distance (n) of each item to its k-th nearest other item. Raises ValueError if there are k items or
    fewer."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} items are too few for {k} neighbours; at least {k + 1} are needed")
    # the k + 1 nearest items include the item itself, at distance 0
    return torch.cat([rows.topk(k + 1, largest=False).values[:, -1] for rows in distances(features, features)])


def distances(rows: Features, columns: Features) -> Iterator[Tensor]:
    """Yields blocks (DISTANCE_ROWS or fewer, number of columns) of Euclidean distances between `rows` and `columns`, in
    the order of the rows. The distance of equal vectors is exactly 0."""
    for block in rows.split(DISTANCE_ROWS):
        yield torch.cdist(block, columns, compute_mode="donot_use_mm_for_euclid_dist")


def class_variance(features: Features, classes: Sequence[str]) -> float | None:
    """Returns the diversity within classes: the trace of the covariance of the features of a class, averaged over the
    classes with at least two items. Returns None if no class has two items."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        groups.setdefault(name, []).append(number)
    variances = [features[rows].double().var(0).sum() for rows in groups.values() if len(rows) > 1]
    return float(torch.stack(variances).mean()) if variances else None


def halves(features: Features) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
    """Returns (items with an even index, items with an odd index). Both have the same number of items; if the number of
    all items is odd, the last item is omitted."""
    return features[: len(features) // 2 * 2 : 2], features[1::2]
