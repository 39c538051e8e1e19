"""What classes state about a configuration, and checks of the values that user-defined classes return. An error message
names the class that returned the value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import Tensor

Problems = Iterator[tuple[tuple[str | int, ...], str]]
"""Pairs (path, message) for the problems of a configuration. The path is the sequence of keys in the YAML, such as
`("inputs", "image", "size")`."""


class ContractError(TypeError):
    """A class returned a value of the wrong type or shape. The message names the class, the value and what is
    expected."""


def described(value: Any) -> str:
    """Returns a description of a value for an error message: the shape of a tensor, the `repr` of a text, number or
    None (if at most 60 characters), or the type of any other value."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | type(None)) else ""
    kind = type(value).__name__
    return text if 0 < len(text) <= 60 else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def is_user_defined(part: object) -> bool:
    """Whether the class of an object is neither chopmix's nor torch's."""
    return type(part).__module__.partition(".")[0] not in (__name__.partition(".")[0], "torch")


def check_block(block: object, x: Any, shape: tuple[int, ...], losses: Sequence[Any] = ()) -> None:
    """Raises ContractError if `x`, which a block returned, is not a tensor with the `shape` of the block's input, or if
    one of `losses`, the loss terms that layers have added, is not a scalar tensor."""
    name = type(block).__name__
    if not isinstance(x, Tensor) or tuple(x.shape) != shape:
        raise ContractError(f"model.block: {name}.forward returned {described(x)}; expected: a tensor of shape {shape}")
    for loss in losses:
        if not isinstance(loss, Tensor) or loss.dim():
            raise ContractError(f"model.block: {name} added the loss term {described(loss)}; expected: a scalar tensor")


def checked_states(blocks: Iterable[object], states: list[Any], expected: type) -> list[Any]:
    """Returns the states that blocks have returned. Raises ContractError if one of them is not an `expected` object."""
    for block, state in zip(blocks, states):
        if not isinstance(state, expected):
            raise ContractError(
                f"model.block: {type(block).__name__}.empty_state returned {described(state)}; expected: a "
                f"{expected.__name__}, such as RowState"
            )
    return states


def check_embedded(name: str, embedder: object, tokens: Any, count: int, width: int) -> None:
    """Raises ContractError if `tokens`, the output of the embedder of input `name`, is not a tensor of `count` vectors
    of the model's `width`."""
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
    if shape[-1:] != (width,) or tokens.numel() != count * width:
        raise ContractError(
            f"inputs.{name}: {type(embedder).__name__} returned {described(tokens)}; expected ({count}, {width}): "
            "one vector of the model's width for each token of its chunks"
        )
