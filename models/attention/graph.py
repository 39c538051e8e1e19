"""Attention graphs: which token attends to which. Attention is message passing on a directed graph of tokens.

A graph is a small frozen value that answers one question: does the query token read the key token? The same method
`edge` computes the dense mask, FlexAttention's `mask_mod`, the picture of a mask and the plain-Python test oracle
(`message_passing.py`), because it uses only comparisons, `&` and `|`, which mean the same for Python numbers, broadcast
tensors and compiled index expressions. Graphs combine with `&`, `|` and `~`:

    Causal() & SameSample()                    a GPT on packed documents
    SameSample()                               a BERT or a ViT: an encoder has no causal mask
    SameSample() & (Causal() | From((1, 2)))   all tokens read inputs 1 and 2
    Causal() & ~From((3,))                     no token reads input 3

A user-defined pattern is a subclass of `Graph`. Here a token reads every `step`-th token, counted back from itself:

    @dataclass(frozen=True)
    class Dilated(Graph):
        step: int

        def edge(self, query, key):
            return (query.position[0] - key.position[0]) % self.step == 0

    Causal() & Dilated(4), or in a YAML:  attention: causal & mylab.graphs:Dilated(4)

A graph in a file of the plug-in folder `models/graphs/` (or `graphs/` of a project) has the name of the file:
`causal & dilated(4)`.

Two rules apply to every graph and are added in `reads` (mask.py). A token reads only tokens of its own sample, neither
padding nor another sample of a packed row. In self-attention it always reads itself, so that no row of scores is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import NamedTuple

import torch
from torch import Tensor

from ..tokens import Tokens


class Node(NamedTuple):
    """One side of an edge: numbers, or tensors that broadcast against those of the other side."""

    input: Tensor
    sample: Tensor
    item: Tensor
    position: Sequence[Tensor]
    """By axis. Axis 0 is the running order within the token's *sample*: 0, 1, 2, ... A graph does not depend on where a
    sample is in a packed row, how much padding precedes it, or what is cached."""

    @classmethod
    def every(cls, tokens: Tokens, axis: int) -> Node:
        """Returns all tokens as one side of all pairs: axis 2 for queries (b, n, 1), axis 1 for keys (b, 1, n)."""
        return cls(
            tokens.input.unsqueeze(axis), tokens.sample.unsqueeze(axis), tokens.item.unsqueeze(axis),
            tokens.position.unsqueeze(axis).unbind(-1),
        )  # fmt: skip


class Graph:
    """Base of all attention graphs: a predicate on (query, key), closed under `&`, `|` and `~`.

    A subclass is a frozen dataclass that defines `edge`. Its fields are its arguments in an expression
    (`attention: window(256)`): `axis` and `axes` are names of position axes, `input` and `inputs` are names of inputs,
    all other fields are numbers.
    """

    def edge(self, query: Node, key: Node):
        """Whether `query` reads `key`: a bool, or a bool tensor that broadcasts to all pairs. It may use only
        comparisons, `&`, `|` and arithmetic."""
        raise NotImplementedError(f"{type(self).__name__} must define edge(self, query, key)")

    def __call__(self, query: Node, key: Node):
        """Returns `edge(query, key)`. Raises ValueError unless the result is True, False or a bool tensor that
        broadcasts to all pairs of query and key."""
        edges = self.edge(query, key)
        is_tensor = isinstance(edges, Tensor)
        if isinstance(edges, bool) or (is_tensor and edges.dtype == torch.bool and _fits(edges, query, key)):
            return edges
        returned = f"{edges.dtype} of shape {tuple(edges.shape)}" if is_tensor else repr(edges)
        if isinstance(query.sample, Tensor):
            expected = f"a bool tensor that broadcasts to the pairs of query and key, {_pairs(query, key)}"
        else:
            expected = "True or False"
        raise ValueError(f"{type(self).__name__}.edge returned {returned}; expected: {expected}")

    def __and__(self, other: Graph) -> And:
        return And(self, other)

    def __or__(self, other: Graph) -> Or:
        return Or(self, other)

    def __invert__(self) -> Not:
        return Not(self)

    def parts(self) -> tuple[Graph, ...]:
        """Returns the operands of a chain of `&`, or the graph itself."""
        return (self,)

    def ahead(self, axis: int = 0) -> frozenset[int] | None:
        """Returns the inputs (by number) whose tokens can be read by tokens that precede them on an axis, such as the
        running order in the sample (axis 0) or seconds. None: all inputs.

        The result must be valid for all possible tokens: the proof that no target leaks depends on it
        (`models/leaks.py`)."""
        return None

    def counts(self) -> bool:
        """Whether an edge depends on the number of tokens between two tokens, or in front of one. A user-defined graph
        that depends on it must override this method."""
        return any(operand.counts() for operand in vars(self).values() if isinstance(operand, Graph))

    def later(self, key: Node, order: Tensor):
        """Whether a token that is added to its sample at running order `order` or later can read the earlier token
        `key`; True if unknown. Generation may drop the tokens that no later token can read."""
        return key.sample == key.sample

    def is_causal(self) -> bool:
        """Whether no token reads a later token of its sample, for all possible tokens."""
        return self.ahead() == frozenset()


def _fits(edges: Tensor, query: Node, key: Node) -> bool:
    """Whether a tensor broadcasts to one value for every pair of tokens."""
    if not isinstance(query.sample, Tensor):
        return False
    pairs = _pairs(query, key)
    sizes = zip(reversed(edges.shape), reversed(pairs))
    return edges.dim() <= len(pairs) and all(size in (1, expected) for size, expected in sizes)


def _pairs(query: Node, key: Node) -> tuple[int, ...]:
    """The shape of all pairs of tokens. `torch.broadcast_shapes` would import sympy, which takes 0.3 seconds."""
    left, right = tuple(query.sample.shape), tuple(key.sample.shape)
    left, right = (1,) * (len(right) - len(left)) + left, (1,) * (len(left) - len(right)) + right
    return tuple(keys if queries == 1 else queries for queries, keys in zip(left, right))


@dataclass(frozen=True)
class And(Graph):
    """The edges that both graphs have."""

    left: Graph
    right: Graph

    def edge(self, query, key):
        return self.left(query, key) & self.right(query, key)

    def parts(self):
        return self.left.parts() + self.right.parts()

    def later(self, key, order):
        return self.left.later(key, order) & self.right.later(key, order)

    def ahead(self, axis=0):
        bounds = [inputs for inputs in (self.left.ahead(axis), self.right.ahead(axis)) if inputs is not None]
        return frozenset.intersection(*bounds) if bounds else None


@dataclass(frozen=True)
class Or(Graph):
    """The edges that at least one graph has."""

    left: Graph
    right: Graph

    def edge(self, query, key):
        return self.left(query, key) | self.right(query, key)

    def later(self, key, order):
        return self.left.later(key, order) | self.right.later(key, order)

    def ahead(self, axis=0):
        left, right = self.left.ahead(axis), self.right.ahead(axis)
        return None if left is None or right is None else left | right


@dataclass(frozen=True)
class Not(Graph):
    """The edges that the graph does not have. The two rules of `mask.reads` still apply."""

    graph: Graph

    def edge(self, query, key):
        return self.graph(query, key) ^ True  # `~` of a Python bool is a number


@dataclass(frozen=True)
class Causal(Graph):
    """Read tokens that are not later in the running order (axis 0), or on another axis such as seconds.

    Tokens without a coordinate on the axis (a class token, a text among sensors) count as last. They read all tokens.
    Tokens with a coordinate do not read them, because they would indirectly read their own future.
    """

    axis: int = 0

    def edge(self, query, key):
        limit = query.position[self.axis]
        return (key.position[self.axis] <= limit) | (limit != limit)  # a missing coordinate is NaN, and NaN != NaN

    def ahead(self, axis=0):
        return frozenset() if axis == self.axis else None


@dataclass(frozen=True)
class SameSample(Graph):
    """Read all tokens of the same sample. Every graph is restricted to the sample anyway, so that this one matters only
    alone or as an operand of `|`."""

    def edge(self, query, key):
        return key.sample == query.sample


@dataclass(frozen=True)
class SameItem(Graph):
    """Read tokens of the same item: the same image, clip or document."""

    def edge(self, query, key):
        return key.item == query.item


@dataclass(frozen=True)
class From(Graph):
    """Read the tokens of these inputs (by number, from 1 in YAML order)."""

    inputs: tuple[int, ...]

    def edge(self, query, key):
        return reduce(or_, [key.input == number for number in self.inputs])

    def later(self, key, order):
        return self.edge(key, key)

    def ahead(self, axis=0):
        return frozenset(self.inputs)


@dataclass(frozen=True)
class Window(Graph):
    """Read tokens at a distance below `size` on an axis, in both directions. Combined with `causal` these are the last
    `size` tokens, including the query itself."""

    size: float
    axis: int = 0

    def edge(self, query, key):
        return abs(query.position[self.axis] - key.position[self.axis]) < self.size

    def counts(self):
        return self.axis == 0

    def later(self, key, order):
        return order - key.position[0] < self.size if self.axis == 0 else super().later(key, order)


@dataclass(frozen=True)
class On(Graph):
    """Read the tokens that have a coordinate on an axis: `on(note)` reads the notes of a text."""

    axis: int

    def edge(self, query, key):
        coordinate = key.position[self.axis]
        return coordinate == coordinate  # a missing coordinate is NaN, and NaN != NaN

    def later(self, key, order):
        return self.edge(key, key)


@dataclass(frozen=True)
class Edges(Graph):
    """Read along the listed edges (source, reader). If `between` is `inputs`, they are numbers of inputs. If it is
    `slots`, they are running orders in the sample; the first token (a core token if there are any) is 0."""

    pairs: tuple[tuple[int, int], ...]
    between: str = "inputs"

    def edge(self, query, key):
        reader, source = (query.input, key.input) if self.between == "inputs" else (query.position[0], key.position[0])
        return reduce(or_, [(source == from_) & (reader == to) for from_, to in self.pairs])

    def counts(self):
        return self.between == "slots"

    def ahead(self, axis=0):
        if self.between == "inputs":
            return frozenset(source for source, _ in self.pairs)
        return frozenset() if axis == 0 and all(source <= reader for source, reader in self.pairs) else None
