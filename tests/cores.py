"""Cores for tests: attention expressions and positions name inputs and axes, as in a YAML file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from chopmix.models.attention.grammar import parse_graph
from chopmix.models.layers.relative import RelativePosition
from chopmix.models.transformer import Block, BlockOptions, Transformer


def core_of(
    inputs: Sequence[str] = (), axes: Sequence[str] = ("order",), crosses: bool = False, *,
    attention: str | list[str] = "causal & same_sample", position: Any = None, block: Any = Block, **options: Any,
) -> Transformer:  # fmt: skip
    """A core for these inputs, numbered from 1, and these axes."""
    graphs = [parse_graph(each, inputs, axes) for each in ([attention] if isinstance(attention, str) else attention)]
    return Transformer(
        attention=graphs, position=lambda heads, channels: (position or RelativePosition)(heads, channels, tuple(axes)),
        block=partial(block, crosses=crosses), **options,
    )  # fmt: skip


def block_of(**options: Any) -> partial:
    """Blocks with these options."""
    return partial(Block, options=BlockOptions(**options))
