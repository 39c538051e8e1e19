"""Measures of the diversity of a generator: recall, coverage and in-class variance of features.

Features are vectors that another model computes for items, one per row. Both compared sets have equally many items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

NEIGHBOURS = 5
"""The k of the k-th nearest neighbour, whose distance is the radius of an item's ball."""
ROWS = 512
"""The number of items whose distances to all others are in memory at a time."""

Features = Float[Tensor, "n d"]


def recall(true: Features, generated: Features, k: int = NEIGHBOURS) -> float:
    """Returns the share of true items inside the ball of at least one generated item, whose radius is the distance to
    the k-th nearest other generated item (Kynkaanniemi et al. 2019, arXiv:1904.06991). It is 0 if the sets are far
    apart, and low if only some kinds of items are generated. Raises ValueError for sets of k items or fewer."""
    radii = radii_of(generated, k)
    return sum(int((rows <= radii).any(1).sum()) for rows in distances(true, generated)) / len(true)


def coverage(true: Features, generated: Features, k: int = NEIGHBOURS) -> float:
    """Returns the share of true items whose ball contains a generated item; the radius is the distance to the k-th
    nearest other true item (Naeem et al. 2020, arXiv:2002.09797). For two sets of one distribution it is about
    1 - 2 ** -k = 0.97. Raises ValueError for sets of k items or fewer."""
    radii = radii_of(true, k)
    nearest = torch.cat([rows.amin(1) for rows in distances(true, generated)])
    return int((nearest <= radii).sum()) / len(true)


def radii_of(features: Features, k: int) -> Float[Tensor, "n"]:
    """Returns the distance of each item to its k-th nearest other item. Raises ValueError for k items or fewer."""
    if len(features) <= k:
        raise ValueError(f"{len(features)} items are too few for {k} neighbours; at least {k + 1} are needed")
    # the k + 1 nearest items include the item itself, at distance 0
    return torch.cat([rows.topk(k + 1, largest=False).values[:, -1] for rows in distances(features, features)])


def distances(rows: Features, columns: Features) -> Iterator[Tensor]:
    """Yields the Euclidean distances of all pairs, `ROWS` rows at a time; exactly 0 for equal vectors."""
    for block in rows.split(ROWS):
        yield torch.cdist(block, columns, compute_mode="donot_use_mm_for_euclid_dist")


def class_variance(features: Features, classes: Sequence[str]) -> float | None:
    """Returns the trace of the covariance of the features of a class, averaged over all classes with at least two
    items, as a measure of the diversity within classes. None if there is no such class."""
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        groups.setdefault(name, []).append(number)
    variances = [features[rows].double().var(0).sum() for rows in groups.values() if len(rows) > 1]
    return float(torch.stack(variances).mean()) if variances else None


def halves(features: Features) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
    """Returns the items with even and with odd index, equally many of both."""
    return features[: len(features) // 2 * 2 : 2], features[1::2]
