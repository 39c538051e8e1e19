"""Checks of the values that user-defined classes return. The error messages name the class."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class ContractError(TypeError):
    """A class breaks its contract. The message names the class, the returned value and the expected one."""


def described(value: Any) -> str:
    """Describes a value for an error message: a tensor by its shape, a short text or number by its `repr`, any other
    value by its type."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | type(None)) else ""
    kind = type(value).__name__
    return text if 0 < len(text) <= 60 else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def is_user_defined(part: object) -> bool:
    """Whether the class of an object is neither chopmix's nor torch's."""
    return type(part).__module__.partition(".")[0] not in (__name__.partition(".")[0], "torch")


def check_block(block: object, x: Any, shape: tuple[int, ...]) -> None:
    """Raises ContractError unless `x`, which a block returned, has the shape of what it received."""
    if not isinstance(x, Tensor) or tuple(x.shape) != shape:
        raise ContractError(
            f"model.block: {type(block).__name__}.forward returned {described(x)}; expected: a tensor of shape {shape}"
        )


def check_embedded(name: str, embedder: object, tokens: Any, count: int, width: int) -> None:
    """Raises ContractError unless `tokens`, the output of the embedder of input `name`, has `count` vectors of the
    model's `width`."""
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
    if shape[-1:] != (width,) or tokens.numel() != count * width:
        raise ContractError(
            f"inputs.{name}: {type(embedder).__name__} returned {described(tokens)}; expected ({count}, {width}): "
            "one vector of the model's width for each token of its chunks"
        )
