"""Attention graphs: which token attends to which. Attention is message passing on a directed graph of tokens.

A graph is a small frozen dataclass that answers one question: does the query token read the key token? The method
`edge` gives the answer. It uses only comparisons, `&`, `|` and arithmetic, which work in the same way for Python
numbers, broadcast tensors and compiled index expressions. Therefore the same method computes the dense mask,
FlexAttention's `mask_mod`, the picture of a mask and the plain-Python reference of the tests (`message_passing.py`).
Graphs are combined with `&`, `|` and `~`:

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

Two rules apply to every graph; `reads` (mask.py) adds them. First, a token reads only tokens of its own sample: it
reads neither padding nor another sample of a packed row. Second, in self-attention every token reads itself, so no row
of scores is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tokens import Tokens


class Node(NamedTuple):
    """The descriptors of the query or of the key of an edge: numbers, or tensors that broadcast against the descriptors
    of the other token. The fields are those of `Tokens`."""

    input: Tensor
    sample: Tensor
    item: Tensor
    position: Sequence[Tensor]
    """One coordinate per axis. Axis 0 is the running order within the token's *sample*: 0, 1, 2, ... Therefore a graph
    does not depend on the columns of a sample in a packed row, on preceding padding, or on the cache."""

    @classmethod
    def every(cls, tokens: Tokens, axis: int) -> Node:
        """Returns the descriptors of all tokens in a shape that broadcasts to all pairs of tokens: for queries `axis`
        is 2 and the shape is (b, n, 1), for keys `axis` is 1 and the shape is (b, 1, n)."""
        return cls(
            tokens.input.unsqueeze(axis), tokens.sample.unsqueeze(axis), tokens.item.unsqueeze(axis),
            tokens.position.unsqueeze(axis).unbind(-1),
        )  # fmt: skip


class Graph:
    """Base class of all attention graphs: a predicate on (query, key). Graphs are combined with `&`, `|` and `~`.

    A subclass is a frozen dataclass that defines `edge`. The arguments in an expression (`attention: window(256)`) are
    the values of its fields. For the fields `axis` and `axes` an expression contains names of position axes, for
    `input` and `inputs` names of inputs; the values of all other fields are numbers.
    """

    def edge(self, query: Node, key: Node):
        """Returns whether `query` reads `key`: a bool, or a bool tensor that broadcasts to all pairs of query and key.
        An implementation may use only comparisons, `&`, `|` and arithmetic."""
        raise NotImplementedError(f"{type(self).__name__} must define edge(self, query, key)")

    def __call__(self, query: Node, key: Node):
        """Returns `edge(query, key)`. Raises ValueError if the result is neither True, False nor a bool tensor that
        broadcasts to all pairs of query and key."""
        edges = self.edge(query, key)
        is_tensor = isinstance(edges, Tensor)
        if isinstance(edges, bool) or (is_tensor and edges.dtype == torch.bool and _fits(edges, query, key)):
            return edges
        raise self._wrong_edges(edges, query, key)

    def _wrong_edges(self, edges: Any, query: Node, key: Node) -> ValueError:
        is_tensor = isinstance(edges, Tensor)
        returned = f"{edges.dtype} of shape {tuple(edges.shape)}" if is_tensor else repr(edges)
        if isinstance(query.sample, Tensor):
            expected = f"a bool tensor that broadcasts to the pairs of query and key, {_pairs(query, key)}"
        else:
            expected = "True or False"
        return ValueError(f"{type(self).__name__}.edge returned {returned}; expected: {expected}")

    def __and__(self, other: Graph) -> And:
        return And(self, other)

    def __or__(self, other: Graph) -> Or:
        return Or(self, other)

    def __invert__(self) -> Not:
        return Not(self)

    def parts(self) -> tuple[Graph, ...]:
        """Returns the operands if the graph is a chain of `&`, else the graph itself in a tuple."""
        return (self,)

    def ahead(self, axis: int = 0) -> frozenset[int] | None:
        """Returns the numbers of the inputs whose tokens can be read by earlier tokens, where "earlier" means a smaller
        position on `axis`: axis 0 is the running order in the sample, another axis can be seconds. None means that
        earlier tokens may read the tokens of all inputs.

        The result must hold for all possible tokens, because the leak check (`models/leaks.py`) relies on it."""
        return None

    def counts(self) -> bool:
        """Returns whether an edge depends on the number of tokens between the two tokens, or before one of them. The
        default is True if an operand of the graph returns True. A user-defined graph whose edges depend on such a
        number must override this method."""
        return any(operand.counts() for operand in operands(self))

    def later(self, key: Node, order: Tensor):
        """Returns whether a token at running order `order` or later, which generation appends to the sample, can read
        the existing token `key`; True if this is unknown. Generation can drop tokens that no later token can read."""
        return key.sample == key.sample

    def is_causal(self) -> bool:
        """Whether no token can read a later token of its sample; `ahead` decides this for all possible tokens."""
        return self.ahead() == frozenset()


def operands(graph: Graph) -> list[Graph]:
    """Returns the graphs that a graph consists of, such as the two sides of `&`."""
    return [value for value in vars(graph).values() if isinstance(value, Graph)]


def _fits(edges: Tensor, query: Node, key: Node) -> bool:
    """Whether the tensor `edges` broadcasts to one value for every pair of query and key."""
    if not isinstance(query.sample, Tensor):
        return False
    pairs = _pairs(query, key)
    sizes = zip(reversed(edges.shape), reversed(pairs))
    return edges.dim() <= len(pairs) and all(size in (1, expected) for size, expected in sizes)


def _pairs(query: Node, key: Node) -> tuple[int, ...]:
    """Returns the broadcast shape of query and key. `torch.broadcast_shapes` would import sympy (0.3 seconds)."""
    left, right = tuple(query.sample.shape), tuple(key.sample.shape)
    left, right = (1,) * (len(right) - len(left)) + left, (1,) * (len(left) - len(right)) + right
    return tuple(keys if queries == 1 else queries for queries, keys in zip(left, right))


@dataclass(frozen=True)
class And(Graph):
    """A token reads another token if `left` and `right` both have the edge."""

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
    """A token reads another token if `left` or `right` has the edge."""

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
    """A token reads another token if `graph` does not have the edge. The two rules of `mask.reads` still apply."""

    graph: Graph

    def edge(self, query, key):
        return self.graph(query, key) ^ True  # `~` of a Python bool is a number


@dataclass(frozen=True)
class Causal(Graph):
    """A token reads the tokens whose position on `axis` is not larger than its own. Axis 0 is the number of the token
    within its sample (0, 1, 2, ...); another axis can be the time in seconds.

    Tokens without a coordinate on the axis (a class token, a text among sensors) come after all others: they read all
    tokens, and tokens with a coordinate do not read them. Otherwise a token could read its own future through them.
    """

    axis: int = 0

    def edge(self, query, key):
        limit = query.position[self.axis]
        return (key.position[self.axis] <= limit) | (limit != limit)  # a missing coordinate is NaN, and NaN != NaN

    def ahead(self, axis=0):
        return frozenset() if axis == self.axis else None


@dataclass(frozen=True)
class SameSample(Graph):
    """A token reads all tokens of the same sample. Every graph is restricted to the sample, so `SameSample` changes a
    mask only if it is the complete graph or an operand of `|` or `!` (in Python `~`)."""

    def edge(self, query, key):
        return key.sample == query.sample


@dataclass(frozen=True)
class SameItem(Graph):
    """A token reads the tokens of the same item: the same image, clip or document."""

    def edge(self, query, key):
        return key.item == query.item


@dataclass(frozen=True)
class From(Graph):
    """A token reads all tokens of these inputs: `from(image, sound)` in an expression. In Python, `inputs` are their
    numbers, from 1 in YAML order."""

    inputs: tuple[int, ...]

    def edge(self, query, key):
        return reduce(or_, [key.input == number for number in self.inputs])

    def later(self, key, order):
        return self.edge(key, key)

    def ahead(self, axis=0):
        return frozenset(self.inputs)


@dataclass(frozen=True)
class Window(Graph):
    """A token reads the tokens at a distance below `size` on an axis, in both directions. `causal & window(4)` reads
    the last 4 tokens: the query itself and the 3 preceding tokens. On axis 0 the unit is tokens; on an axis of time it
    is seconds."""

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
    """A token reads all tokens that have a coordinate on an axis: with `on(note)` it reads the tokens inside notes, the
    marked parts of a text (`models/generation/notes.py`)."""

    axis: int

    def edge(self, query, key):
        coordinate = key.position[self.axis]
        return coordinate == coordinate  # a missing coordinate is NaN, and NaN != NaN

    def later(self, key, order):
        return self.edge(key, key)


@dataclass(frozen=True)
class Edges(Graph):
    """The tokens of an input read the tokens of another input: with `edges(sound -> answer)` in an expression, all
    tokens of the answer read all tokens of the sound. In Python, `pairs` has pairs (source, reader). If `between` is
    `inputs`, these are numbers of inputs, from 1. If it is `slots`, they are running orders in the sample, where 0 is
    the first token (a core token if the model has core tokens)."""

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
