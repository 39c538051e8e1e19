"""Attention patterns of a user's own, outside the package: one as it should be, and some that are wrong."""

from dataclasses import dataclass

import torch
from chopmix.models.attention.graph import Graph


@dataclass(frozen=True)
class Dilated(Graph):
    """Read every `step`-th token, before and behind (Child et al. 2019, arXiv:1904.10509)."""

    step: int

    def edge(self, query, key):
        return (query.position[0] - key.position[0]) % self.step == 0


@dataclass(frozen=True)
class OfInput(Graph):
    """Read the tokens of one input that are near on some axes: takes names of inputs and of axes."""

    input: int
    radius: float
    axes: tuple[int, ...] = (0,)

    def edge(self, query, key):
        found = key.input == self.input
        for axis in self.axes:
            found = found & (abs(query.position[axis] - key.position[axis]) <= self.radius)
        return found


@dataclass(frozen=True)
class Distance(Graph):
    """Wrong: a number for every pair."""

    def edge(self, query, key):
        return query.position[0] - key.position[0]


@dataclass(frozen=True)
class OfQueries(Graph):
    """Wrong: a value for every query and row, and an axis too many."""

    def edge(self, query, key):
        return (query.position[0] > 0)[None].expand(5, -1, -1, -1)


@dataclass(frozen=True)
class Always(Graph):
    """Wrong: one word for all."""

    def edge(self, query, key):
        return "yes"


@dataclass(frozen=True)
class Broken(Graph):
    """Wrong: looks at an axis that no token has."""

    def edge(self, query, key):
        return query.position[17] == key.position[17]


@dataclass(frozen=True)
class Silent(Graph):
    """Wrong: has no edges."""


@dataclass
class Thawed(Graph):
    """Wrong: not frozen."""

    def edge(self, query, key):
        return query.item == key.item


@dataclass(frozen=True)
class Picky(Graph):
    """Refuses some of its arguments."""

    share: float

    def __post_init__(self):
        if self.share > 1:
            raise ValueError(f"share must be at most 1, not {self.share}")

    def edge(self, query, key):
        return torch.ones((), dtype=torch.bool) if torch.is_tensor(query.sample) else True
