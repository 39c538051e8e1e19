"""Hypothesis strategies for random tokens and random graphs, for tests of properties that always hold."""

from __future__ import annotations

import torch
from chopmix.models.attention.graph import (
    And,
    Causal,
    Edges,
    From,
    Graph,
    Not,
    On,
    Or,
    SameItem,
    SameSample,
    Window,
)
from chopmix.models.graphs.neighbourhood import Neighbourhood
from chopmix.models.tokens import Tokens
from hypothesis import strategies as st
from own_graph import Dilated

INPUTS = ("text", "image", "sound")
AXES = ("order", "row", "column")
COORDINATES = (0.0, 0.5, 1.0, 2.0, 3.0, torch.nan)


_axis, _number, _place = st.integers(0, len(AXES) - 1), st.integers(1, len(INPUTS)), st.integers(0, 9)
_size = st.integers(1, 8).map(lambda halves: halves / 2)
LEAVES: dict[type[Graph], st.SearchStrategy] = {
    Causal: st.builds(Causal, _axis),
    SameSample: st.just(SameSample()),
    SameItem: st.just(SameItem()),
    From: st.builds(From, st.lists(_number, min_size=1, max_size=3).map(tuple)),
    Window: st.builds(Window, _size, _axis),
    Neighbourhood: st.builds(Neighbourhood, _size, st.lists(_axis, min_size=1, max_size=3).map(tuple)),
    On: st.builds(On, _axis),
    Edges: st.builds(Edges, st.lists(st.tuples(_number, _number), min_size=1, max_size=3).map(tuple))
    | st.builds(Edges, st.lists(st.tuples(_place, _place), min_size=1, max_size=3).map(tuple), st.just("slots")),
}
LEAVES |= {Not: st.builds(Not, st.one_of(*LEAVES.values())), Dilated: st.builds(Dilated, st.integers(1, 4))}
"""Every graph value that does not combine two others, and one that a user defines. Sizes are multiples of a half,
which are exact in floats of every width."""


def leaves() -> st.SearchStrategy:
    """One graph value of any kind."""
    return st.one_of(*LEAVES.values())


def graphs(leaf: st.SearchStrategy | None = None) -> st.SearchStrategy:
    """Expressions of all graph values with `&`, `|` and `~`."""
    return st.recursive(
        leaf or leaves(),
        lambda part: st.builds(And, part, part) | st.builds(Or, part, part) | st.builds(Not, part),
        max_leaves=5,
    )


def causal_graphs() -> st.SearchStrategy:
    """Expressions with backward edges only: `causal`, restricted by any graph, and unions of such expressions."""
    leaf = st.just(Causal())
    narrowed = st.builds(And, leaf, graphs()) | st.builds(And, graphs(), leaf)
    return st.recursive(
        leaf | narrowed,
        lambda part: st.builds(Or, part, part) | st.builds(And, part, leaves()) | st.builds(And, leaves(), part),
        max_leaves=4,
    )


@st.composite
def tokens(
    draw, most: int = 7, rows: int | None = None, length: int | None = None, sample: int | None = None
) -> Tokens:
    """Rows of mixed inputs: samples and padding in any order, several items, coordinates that may be missing.
    `sample`: all tokens belong to this sample."""
    b, n, only = rows or draw(st.integers(1, 3)), length or draw(st.integers(1, most)), sample
    sample, span, numbers, position = [], [], [], []
    for row in range(b):
        start = draw(st.integers(0, 2))
        samples = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)) if only is None else [only] * n
        sample.append([s and 2 * row + s for s in samples])
        span.append([s and 4 * row + draw(st.integers(1, 4)) for s in samples])
        numbers.append(draw(st.lists(st.integers(0, len(INPUTS)), min_size=n, max_size=n)))
        position.append([[float(start + i), *(draw(st.sampled_from(COORDINATES)) for _ in AXES[1:])] for i in range(n)])
    return Tokens(
        input=torch.tensor(numbers),
        sample=torch.tensor(sample),
        item=torch.tensor(span),
        position=torch.tensor(position),
    )


@st.composite
def packed_tokens(draw, most: int = 12, padding: bool = True) -> Tokens:
    """Rows of complete samples one after another, as packing creates them, with padding between or after them."""
    b, n = draw(st.integers(1, 3)), draw(st.integers(1, most))
    sample, number = [], 0
    for _ in range(b):
        row: list[int] = []
        while len(row) < n:
            if draw(st.booleans()) or not padding:
                number += 1
                row += [number] * draw(st.integers(1, n))
            else:
                row += [0] * draw(st.integers(1, 3))
        sample.append(row[:n])
    return laid_out(sample)


def laid_out(sample: list[list[int]], numbers: list[list[int]] | None = None, axes: int = 3) -> Tokens:
    """Tokens with these sample numbers (and inputs): each sample is one item, in running order and in rows of three."""
    order = torch.arange(len(sample[0]), dtype=torch.float32).expand(len(sample), -1)
    samples = torch.tensor(sample)
    return Tokens(
        input=torch.ones_like(samples) if numbers is None else torch.tensor(numbers),
        sample=samples, item=samples, position=torch.stack([order, order // 3, order % 3], dim=-1)[..., :axes],
    )  # fmt: skip
