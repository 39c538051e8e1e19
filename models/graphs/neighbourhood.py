"""Attention to tokens that are near on several axes, such as the 3 x 3 patches around a patch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import and_

from ..attention.graph import Graph


@dataclass(frozen=True)
class Neighbourhood(Graph):
    """A token reads the tokens at a distance of at most `radius` on each of the axes. With radius 1 on the axes row and
    column these are 3 x 3 patches. A token without a coordinate on one of the axes, such as a token of a text, reads
    and is read by no other token."""

    radius: float
    axes: tuple[int, ...]

    def edge(self, query, key):
        distances = [abs(query.position[axis] - key.position[axis]) for axis in self.axes]
        return reduce(and_, [distance <= self.radius for distance in distances])

    def counts(self):
        return 0 in self.axes
