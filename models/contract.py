"""Checks of what classes from outside the package return, with error messages that name the class."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class ContractError(TypeError):
    """A class breaks its contract: the message names the class, what it returned, and what is expected."""


def described(value: Any) -> str:
    """A value for an error message: a tensor by its shape, a short text or number as it is, all else by its type."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(value) if isinstance(value, str | int | float | type(None)) else ""
    kind = type(value).__name__
    return text if 0 < len(text) <= 60 else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def check_embedded(name: str, embedder: object, tokens: Any, count: int, width: int) -> None:
    """Raises ContractError unless `tokens`, which an input's embedder returned, holds one vector of the model's `width`
    for each of `count` tokens."""
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else ()
    if shape[-1:] != (width,) or tokens.numel() != count * width:
        raise ContractError(
            f"inputs.{name}: {type(embedder).__name__} gave {described(tokens)}; expected is ({count}, {width}): for "
            "each token of its chunks one vector of the model's width"
        )
