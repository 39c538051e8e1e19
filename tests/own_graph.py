"""Attention patterns that a user defines outside the package: some are correct, others are wrong."""

from dataclasses import dataclass

import torch
from chopmix.models.attention.graph import Graph


@dataclass(frozen=True)
class Dilated(Graph):
    """Read every `step`-th token, before and after (Child et al. 2019, arXiv:1904.10509)."""

    step: int

    def edge(self, query, key):
        return (query.position[0] - key.position[0]) % self.step == 0


@dataclass(frozen=True)
class OfOperands(Graph):
    """A graph with a field whose name a method of the base class could have."""

    operands: int

    def edge(self, query, key):
        return query.sample == key.sample


@dataclass(frozen=True)
class OfInput(Graph):
    """Read the tokens of one input that are near on some axes: takes names of inputs and of axes."""

    input: int
    radius: float
    axes: tuple[int, ...] = (0,)

    def edge(self, query, key):
        edges = key.input == self.input
        for axis in self.axes:
            edges = edges & (abs(query.position[axis] - key.position[axis]) <= self.radius)
        return edges


@dataclass(frozen=True)
class Distance(Graph):
    """Wrong: returns a number for every pair."""

    def edge(self, query, key):
        return query.position[0] - key.position[0]


@dataclass(frozen=True)
class OfQueries(Graph):
    """Wrong: returns a value for every query and row, with one axis too many."""

    def edge(self, query, key):
        return (query.position[0] > 0)[None].expand(5, -1, -1, -1)


@dataclass(frozen=True)
class Always(Graph):
    """Wrong: returns one word for all pairs."""

    def edge(self, query, key):
        return "yes"


@dataclass(frozen=True)
class Broken(Graph):
    """Wrong: reads an axis that no token has."""

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
