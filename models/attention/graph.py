"""Attention is message passing on a directed graph of tokens; this file is the graph.

A graph is a small frozen value that answers one question: does the query token read the key token? The same three lines
give the dense mask, FlexAttention's `mask_mod`, the drawing of a mask and the plain-Python oracle
(`message_passing.py`), because `edge` uses only comparisons, `&` and `|`, which mean the same for Python numbers,
broadcast tensors and compiled index expressions. Graphs combine with `&`, `|` and `~`:

    Causal() & SameSample()                    a GPT on packed documents
    SameSample()                               a BERT or a ViT: delete the mask and it is an encoder
    SameSample() & (Causal() | From((1, 2)))   everybody reads inputs 1 and 2
    Causal() & ~From((3,))                     nobody reads input 3

A pattern of your own is one more such class. Here a token reads every `step`-th token before it:

    @dataclass(frozen=True)
    class Dilated(Graph):
        step: int

        def edge(self, query, key):
            return (query.position[0] - key.position[0]) % self.step == 0

    Causal() & Dilated(4), or in a YAML:  attention: causal & mylab.graphs:Dilated(4)

In a file of the plug-in folder `models/graphs/` (or `graphs/` of a project) it is named by the file: `causal & dilated(4)`.

Two rules hold for every graph and are added in `reads` (mask.py): a token reads its own sample only, never padding and
never another sample of a packed row, and in self-attention it always reads itself, so that no row of scores is empty.
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
    """One side of an edge: numbers, or tensors that broadcast against the other side's."""

    input: Tensor
    sample: Tensor
    item: Tensor
    position: Sequence[Tensor]
    """By axis. Axis 0 is the running order within the token's *sample*, 0, 1, 2, ...: no graph can see where in a
    packed row the sample is, how much padding is before it, or what is cached."""

    @classmethod
    def every(cls, tokens: Tokens, axis: int) -> Node:
        """All tokens as one side of all pairs: axis 2 for queries (b, n, 1), axis 1 for keys (b, 1, n)."""
        descriptors = (each.unsqueeze(axis) for each in (tokens.input, tokens.sample, tokens.item))
        return cls(*descriptors, tokens.position.unsqueeze(axis).unbind(-1))


class Graph:
    """Base of all attention graphs: a predicate on (query, key), closed under `&`, `|` and `~`.

    A subclass is a frozen dataclass that defines `edge`. Its fields are the arguments that it takes in an expression
    (`attention: window(256)`): `axis` and `axes` are written as names of position axes, `input` and `inputs` as names
    of inputs, all others as numbers.
    """

    def edge(self, query: Node, key: Node):
        """Whether `query` reads `key`: a bool, or a bool tensor that broadcasts to all pairs. Written with comparisons,
        `&`, `|` and arithmetic alone."""
        raise NotImplementedError(f"{type(self).__name__} must say which edges it has: edge(self, query, key)")

    def __call__(self, query: Node, key: Node):
        """`edge`, checked. Raises ValueError where it gives anything but a truth value for every pair of tokens."""
        found = self.edge(query, key)
        tensor = isinstance(found, Tensor)
        if isinstance(found, bool) or (tensor and found.dtype == torch.bool and _fits(found, query, key)):
            return found
        given = f"{found.dtype} of shape {tuple(found.shape)}" if tensor else repr(found)
        if isinstance(query.sample, Tensor):
            expected = f"a bool tensor that broadcasts to the pairs of query and key, {_pairs(query, key)}"
        else:
            expected = "True or False"
        raise ValueError(f"{type(self).__name__}.edge gave {given}; expected {expected}")

    def __and__(self, other: Graph) -> And:
        return And(self, other)

    def __or__(self, other: Graph) -> Or:
        return Or(self, other)

    def __invert__(self) -> Not:
        return Not(self)

    def parts(self) -> tuple[Graph, ...]:
        """The operands of a chain of `&`, or the graph itself."""
        return (self,)

    def ahead(self, axis: int = 0) -> frozenset[int] | None:
        """The inputs (by number) whose tokens may be read by tokens before them on an axis, such as the running order
        in their sample (0) or seconds; None: any may.

        It must hold for all possible tokens: the proof that no target leaks starts from it (`models/leaks.py`).
        """
        return None

    def counts(self) -> bool:
        """Whether an edge depends on how many tokens stand between two, or before one. A graph of one's own that does
        not say so does not."""
        return any(each.counts() for each in vars(self).values() if isinstance(each, Graph))

    def later(self, key: Node, order: Tensor):
        """Whether a token that joins its sample at running order `order`, or later still, may read `key`, a token
        before it; True wherever that is not known. What no later token reads need not be kept while generating."""
        return key.sample == key.sample

    def is_causal(self) -> bool:
        """Whether no token reads a later one of its sample, for all possible tokens."""
        return self.ahead() == frozenset()


def _fits(found: Tensor, query: Node, key: Node) -> bool:
    """Whether a tensor broadcasts to one value for every pair of tokens."""
    if not isinstance(query.sample, Tensor):
        return False
    pairs = _pairs(query, key)
    sizes = zip(reversed(found.shape), reversed(pairs))
    return found.dim() <= len(pairs) and all(size in (1, wanted) for size, wanted in sizes)


def _pairs(query: Node, key: Node) -> tuple[int, ...]:
    """The shape of all pairs of tokens. (torch.broadcast_shapes imports sympy, a third of a second.)"""
    one, other = tuple(query.sample.shape), tuple(key.sample.shape)
    one, other = (1,) * (len(other) - len(one)) + one, (1,) * (len(one) - len(other)) + other
    return tuple(keys if queries == 1 else queries for queries, keys in zip(one, other))


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
        known = [each for each in (self.left.ahead(axis), self.right.ahead(axis)) if each is not None]
        return frozenset.intersection(*known) if known else None


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
    """The edges that the graph lacks; the two rules of `mask.reads` still hold."""

    graph: Graph

    def edge(self, query, key):
        return self.graph(query, key) ^ True  # `~` of a Python bool is a number


@dataclass(frozen=True)
class Causal(Graph):
    """Read what is not later: in the running order (axis 0), or on another axis such as seconds.

    Tokens without a coordinate there (a class token, a text among sensors) come after everything: they read all tokens,
    and tokens with a coordinate do not read them, since they would read their own future through them.
    """

    axis: int = 0

    def edge(self, query, key):
        own = query.position[self.axis]
        return (key.position[self.axis] <= own) | (own != own)  # no coordinate is NaN, which differs from itself

    def ahead(self, axis=0):
        return frozenset() if axis == self.axis else None


@dataclass(frozen=True)
class SameSample(Graph):
    """Read all of your own sample. Every graph is limited to this, so that it matters only alone or beside `|`."""

    def edge(self, query, key):
        return key.sample == query.sample


@dataclass(frozen=True)
class SameItem(Graph):
    """Read your own item: the same image, clip or document."""

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
    """Read what is less than `size` away on an axis, to both sides; with `causal`, the last `size` tokens, itself
    included."""

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
        own = key.position[self.axis]
        return own == own  # no coordinate is NaN, which differs from itself

    def later(self, key, order):
        return self.edge(key, key)


@dataclass(frozen=True)
class Edges(Graph):
    """Read along the listed edges (source, reader): `between` is `inputs`, by number, or `slots`, by the running order
    in the sample, whose first token (a core token, where there are any) is number 0."""

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
